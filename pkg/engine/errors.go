package engine

import (
	"errors"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"
)

// What callers tell apart. Errors of this package match one of them with
// [errors.Is], or none.
var (
	// ErrAway means that the engine did not answer.
	ErrAway = errors.New("engine does not answer")
	// ErrNotFound means that what a call names does not exist.
	ErrNotFound = errors.New("not found")
	// ErrConflict means that a name is taken or an object is in use.
	ErrConflict = errors.New("conflict")
	// ErrInvalid means that the engine does not understand or allow what was
	// asked: asking again cannot help.
	ErrInvalid = errors.New("invalid")
	// ErrImage means that no registry has the image, or none lets us have it.
	ErrImage = errors.New("image not available")
	// ErrCommand means that the image has no such program, or one that
	// cannot be executed.
	ErrCommand = errors.New("command cannot be run")
	// ErrPort means that a host port is taken.
	ErrPort = errors.New("port is taken")
)

// Error is a call that an engine refused.
type Error struct {
	// Op is what was tried, such as "create container shop-web-1".
	Op string
	// Kind is one of the package's sentinels, or nil.
	Kind error
	err  error
}

// Error is the operation and the engine's words, without its preamble.
func (e *Error) Error() string {
	return e.Op + ": " + strings.TrimPrefix(e.err.Error(), "Error response from daemon: ")
}

// Unwrap gives the kind and the client's error.
func (e *Error) Unwrap() []error {
	if e.Kind == nil {
		return []error{e.err}
	}
	return []error{e.Kind, e.err}
}

// wrap says what was tried and which kind of error came of it; nil stays nil.
func wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op, Kind: kindOf(err), err: err}
}

func kindOf(err error) error {
	switch {
	case client.IsErrConnectionFailed(err):
		return ErrAway
	case cerrdefs.IsNotFound(err):
		return ErrNotFound
	case cerrdefs.IsConflict(err), cerrdefs.IsAlreadyExists(err):
		return ErrConflict
	case cerrdefs.IsInvalidArgument(err):
		return ErrInvalid
	}
	return nil
}

// startKind reads the reason why a container did not start from the engine's
// words: all of these arrive as plain server errors.
func startKind(err error) error {
	s := err.Error()
	has := func(parts ...string) bool {
		for _, p := range parts {
			if !strings.Contains(s, p) {
				return false
			}
		}
		return true
	}
	switch {
	case has("exec:", "executable file not found"),
		has("exec:", "no such file or directory"),
		has("exec:", "permission denied"),
		has("exec format error"),
		has("OCI runtime create failed", "is a directory"):
		return ErrCommand
	case has("port is already allocated"), has("address already in use"):
		return ErrPort
	}
	return kindOf(err)
}
