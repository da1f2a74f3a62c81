package command

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/docker/cli/cli"

	"clocker.io/clocker/cli-plugin/follow"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/engine/connect"
	"clocker.io/clocker/pkg/fleet"
	"clocker.io/clocker/pkg/model"
)

// The exit codes of every verb; exec gives the code of the command it ran
// when that one ran.
const (
	ExitOK          = 0
	ExitFailed      = 1
	ExitInvalid     = 2
	ExitUnreachable = 3
	ExitNotFound    = 4
	ExitConflict    = 5
	ExitInterrupted = 130
)

// ExitCodes describes the codes, for the reference.
var ExitCodes = []struct {
	Code    int
	Meaning string
}{
	{ExitOK, "Done."},
	{ExitFailed, "The operation failed; what was begun has been taken back where that is possible. Doctor, pool check and trace: something is wrong."},
	{ExitInvalid, "The input cannot be used: a file with problems, a wrong flag or argument."},
	{ExitUnreachable, "No fleet is known, or no controller (or engine) of it can be reached, or the connection was lost."},
	{ExitNotFound, "There is no such application, service, task, host, network, rule or pool."},
	{ExitConflict, "Something is in the way: another release under way, a name or port that is taken."},
	{ExitInterrupted, "Interrupted by the user."},
}

// usageError is a mistake in how a command was called.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// statusError ends the program with a code and no message of its own.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// codes maps errors to exit codes; the first that matches counts.
var codes = []struct {
	target error
	code   int
	// remedy says what to do; may be empty.
	remedy string
}{
	{errInterrupted, ExitInterrupted, ""},
	{follow.ErrAbandoned, ExitInterrupted, ""},
	{context.Canceled, ExitInterrupted, ""},
	{errInvalid, ExitInvalid, ""},
	{api.ErrInvalid, ExitInvalid, ""},
	{fleet.ErrName, ExitInvalid, ""},
	{fleet.ErrNoFleet, ExitUnreachable, ""},
	{api.ErrUnreachable, ExitUnreachable, "Look for the container clocker-controller on that machine (docker ps -a), or choose another fleet with --fleet."},
	{api.ErrLost, ExitUnreachable, ""},
	{fleet.ErrUnreachable, ExitUnreachable, ""},
	{errNotFound, ExitNotFound, ""},
	{api.ErrNotFound, ExitNotFound, ""},
	{errConflict, ExitConflict, ""},
	{api.ErrConflict, ExitConflict, ""},
	{fleet.ErrOtherFleet, ExitConflict, ""},
	{fleet.ErrInUse, ExitConflict, ""},
}

// What verbs themselves find.
var (
	errInterrupted = errors.New("interrupted")
	errInvalid     = errors.New("invalid input")
	errNotFound    = errors.New("not found")
	errConflict    = errors.New("conflict")
)

// verdict is an error with a message of its own that matches a sentinel.
type verdict struct {
	kind error
	text string
}

func (v verdict) Error() string        { return v.text }
func (v verdict) Is(target error) bool { return target == v.kind }

func notFound(format string, a ...any) error {
	return verdict{errNotFound, fmt.Sprintf(format, a...)}
}

func invalid(format string, a ...any) error {
	return verdict{errInvalid, fmt.Sprintf(format, a...)}
}

// Exit turns a command's error into the exit code of the program and the text
// that goes to standard error, which is empty when nothing is left to say.
func Exit(err error) (code int, text string) {
	var (
		usage    usageError
		status   statusError
		problems model.Problems
		docker   cli.StatusError
		engine   *connect.Error
	)
	switch {
	case err == nil:
		return ExitOK, ""
	case errors.As(err, &status):
		return int(status), ""
	case err == context.Canceled: //nolint:errorlint // with nothing more to say
		return ExitInterrupted, ""
	case errors.As(err, &usage), errors.As(err, &problems):
		return ExitInvalid, err.Error()
	case errors.As(err, &engine) && !errors.Is(err, context.Canceled):
		if engine.Kind == connect.Invalid || engine.Kind == connect.Credentials {
			return ExitInvalid, err.Error()
		}
		return ExitUnreachable, err.Error()
	case errors.As(err, &docker):
		return max(docker.StatusCode, ExitFailed), err.Error()
	}
	for _, c := range codes {
		if errors.Is(err, c.target) {
			return c.code, strings.TrimSpace(err.Error() + "\n" + c.remedy)
		}
	}
	return ExitFailed, err.Error()
}
