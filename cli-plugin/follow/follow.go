// Package follow stays with an operation of the fleet until it is over: it
// shows its progress, finds it again when a connection is lost, and takes it
// back when the user interrupts. It decides nothing about the operation: the
// controller does.
//
// Design page: docs/design/cli.md.
package follow

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"clocker.io/clocker/cli-plugin/progress"
	"clocker.io/clocker/pkg/api"
)

// Controller is what following needs of the API.
type Controller interface {
	Progress(ctx context.Context, app string, release int, f func(api.Progress) error) error
	Cancel(ctx context.Context, app string) error
}

// Operation is something under way.
type Operation struct {
	// App is the application's name.
	App string
	// Start sends the request and calls f with each line of its stream.
	Start func(ctx context.Context, f func(api.Progress) error) error
	// Show draws the lines.
	Show *progress.Release
	// Display takes notes to the user.
	Display progress.Display
	// Resumable means that the stream can be found again by its release.
	Resumable bool
	// Cancellable means that an interrupt takes the operation back.
	Cancellable bool
	// Patience is how long a lost stream is looked for.
	Patience time.Duration
	// Pause is the time between two looks.
	Pause time.Duration
}

// Result is how an operation ended.
type Result struct {
	// Release is its number; 0 when it has none or none was told.
	Release int
	// Done is the last line's word: "ok", "failed", "cancelled" or
	// "conflict".
	Done     string
	Problems []string
	Steps    []api.Step
	// Interrupted means that the user asked for the operation to be taken
	// back.
	Interrupted bool
}

// ErrAbandoned means that the user left before the operation was over.
var ErrAbandoned = errors.New("left while it goes on")

// Interrupts tells of the user's wish to stop: First is closed by the first
// interrupt, Second by the second.
type Interrupts struct {
	First, Second <-chan struct{}
}

// Run carries an operation out and follows it to its end. The error is the
// request's own, [api.ErrLost] or [api.ErrUnreachable] when the stream could
// not be found again, or [ErrAbandoned].
func Run(ctx context.Context, c Controller, o Operation, in Interrupts) (Result, error) {
	// What ends ctx is an interrupt, and arrives as one.
	ctx, leave := context.WithCancelCause(context.WithoutCancel(ctx))
	defer leave(nil)
	f := &follower{c: c, o: o}
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		f.watch(ctx, in, leave)
	}()
	err := f.run(ctx)
	if context.Cause(ctx) == ErrAbandoned { //nolint:errorlint // set by watch below
		err = ErrAbandoned
	}
	leave(nil)
	<-watching
	f.result.Interrupted = f.interrupted.Load()
	return f.result, err
}

type follower struct {
	c           Controller
	o           Operation
	result      Result
	interrupted atomic.Bool
}

func (f *follower) run(ctx context.Context) error {
	err := f.o.Start(ctx, f.line)
	if !errors.Is(err, api.ErrLost) || !f.o.Resumable || f.result.Release == 0 {
		return err
	}
	f.o.Display.Note("connection to the controller lost: looking for the release again")
	deadline := time.NewTimer(f.o.Patience)
	defer deadline.Stop()
	for {
		err = f.c.Progress(ctx, f.o.App, f.result.Release, f.line)
		if !errors.Is(err, api.ErrLost) && !errors.Is(err, api.ErrUnreachable) {
			return err
		}
		pause := time.NewTimer(f.o.Pause)
		select {
		case <-deadline.C:
			pause.Stop()
			return err
		case <-ctx.Done():
			pause.Stop()
			return context.Cause(ctx)
		case <-pause.C:
		}
	}
}

// line takes one line of the stream, whichever connection it came by.
func (f *follower) line(p api.Progress) error {
	if p.Release > 0 {
		f.result.Release = p.Release
	}
	if p.Step != nil {
		f.result.Steps = append(f.result.Steps, *p.Step)
	}
	if p.Problem != "" {
		f.result.Problems = append(f.result.Problems, p.Problem)
	}
	if p.Done != "" {
		f.result.Done = p.Done
	}
	f.o.Show.Add(p)
	return nil
}

// watch waits for interrupts.
func (f *follower) watch(ctx context.Context, in Interrupts, leave context.CancelCauseFunc) {
	select {
	case <-ctx.Done():
		return
	case <-in.First:
	}
	f.interrupted.Store(true)
	if !f.o.Cancellable {
		leave(ErrAbandoned)
		return
	}
	f.o.Display.Title("Taking back " + f.o.App)
	f.o.Display.Note("interrupted: taking the release back (interrupt again to leave at once)")
	if err := f.cancel(ctx, in.Second); err != nil && ctx.Err() == nil {
		f.o.Display.Note(fmt.Sprintf("take the release back: %v", err))
	}
	select {
	case <-ctx.Done():
	case <-in.Second:
		leave(ErrAbandoned)
	}
}

// cancel asks for the release to be taken back, again for as long as the
// controller knows of none: the request may still be on its way.
func (f *follower) cancel(ctx context.Context, second <-chan struct{}) error {
	for {
		err := f.c.Cancel(ctx, f.o.App)
		if !errors.Is(err, api.ErrConflict) && !errors.Is(err, api.ErrNotFound) && !errors.Is(err, api.ErrUnreachable) {
			return err
		}
		pause := time.NewTimer(f.o.Pause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil
		case <-second:
			pause.Stop()
			return err
		case <-pause.C:
		}
	}
}
