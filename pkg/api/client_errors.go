package api

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// What a client's caller branches on. Errors of calls match them with
// errors.Is.
var (
	// ErrInvalid means that the controller cannot use what it was sent.
	ErrInvalid = errors.New("invalid request")
	// ErrNotFound means that there is no such application, task or host.
	ErrNotFound = errors.New("not found")
	// ErrConflict means that something is in the way: a release under way, a
	// name that is taken, a plan that no longer fits.
	ErrConflict = errors.New("conflict")
	// ErrForbidden means that this user may not do that.
	ErrForbidden = errors.New("not allowed")
	// ErrUnreachable means that no controller answered.
	ErrUnreachable = errors.New("no controller answers")
	// ErrLost means that a connection ended before its answer was complete:
	// whether the request took effect is not known.
	ErrLost = errors.New("connection to the controller lost")
)

// CallError is a controller's refusal.
type CallError struct {
	// Status is the HTTP status, 400 or higher.
	Status int
	Body   Error
}

// Error returns the controller's message followed by its problems, one a line.
func (e *CallError) Error() string {
	lines := append([]string{e.Body.Message}, e.Body.Problems...)
	if e.Body.Message == "" {
		lines = lines[1:]
	}
	if len(lines) == 0 {
		return fmt.Sprintf("controller answers %d %s", e.Status, http.StatusText(e.Status))
	}
	return strings.Join(lines, "\n")
}

// Is matches the sentinel of the status.
func (e *CallError) Is(target error) bool {
	switch e.Status {
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return target == ErrInvalid
	case http.StatusUnauthorized, http.StatusForbidden:
		return target == ErrForbidden
	case http.StatusNotFound:
		return target == ErrNotFound
	case http.StatusConflict, http.StatusPreconditionFailed:
		return target == ErrConflict
	}
	return false
}

// maxErrorBody bounds what is read of a refusal.
const maxErrorBody = 1 << 20

// refusal reads the body of an answer that is not 2xx.
func refusal(r *http.Response) *CallError {
	e := &CallError{Status: r.StatusCode}
	b, err := io.ReadAll(io.LimitReader(r.Body, maxErrorBody))
	if err != nil || json.Unmarshal(b, &e.Body) != nil {
		e.Body = Error{Message: strings.TrimSpace(string(b))}
	}
	return e
}

// UnreachableError says what each controller did instead of answering. It
// matches [ErrUnreachable].
type UnreachableError struct {
	Attempts []Attempt
}

// Attempt is one controller that was tried.
type Attempt struct {
	URL string
	Err error
}

// Error names every controller and its reason on a line of its own.
func (e *UnreachableError) Error() string {
	if len(e.Attempts) == 0 {
		return ErrUnreachable.Error() + ": the fleet's file names none"
	}
	lines := []string{ErrUnreachable.Error() + ":"}
	stranger := false
	for _, a := range e.Attempts {
		lines = append(lines, "  "+a.URL+": "+a.Err.Error())
		stranger = stranger || estranged(a.Err)
	}
	if stranger {
		lines = append(lines, "Either the fleet's authority was changed while this machine was away, or its certificate has run out, or another fleet is there.",
			"A user joins again with another token (docker clocker user add, docker clocker fleet join); a host is added again (docker clocker host add).")
	}
	return strings.Join(lines, "\n")
}

// estranged reports whether one side does not accept the certificate of the
// other: its authority is not known, or it has run out.
func estranged(err error) bool {
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		return true
	}
	// Alerts (RFC 8446 §6.2) of the other side; their type is not exported.
	var remote *net.OpError
	return errors.As(err, &remote) && remote.Op == "remote error" &&
		(strings.Contains(remote.Error(), "unknown certificate authority") || strings.Contains(remote.Error(), "bad certificate") || strings.Contains(remote.Error(), "expired certificate"))
}

// standby reports whether some controller answered that it cannot serve now.
func (e *UnreachableError) standby() bool {
	for _, a := range e.Attempts {
		var refused *CallError
		if errors.As(a.Err, &refused) && refused.Status == http.StatusServiceUnavailable {
			return true
		}
	}
	return false
}

// Is matches [ErrUnreachable].
func (e *UnreachableError) Is(target error) bool { return target == ErrUnreachable }

// Unwrap gives the reasons.
func (e *UnreachableError) Unwrap() []error {
	errs := make([]error, len(e.Attempts))
	for i, a := range e.Attempts {
		errs[i] = a.Err
	}
	return errs
}
