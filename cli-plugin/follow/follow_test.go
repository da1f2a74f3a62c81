package follow

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/cli-plugin/progress"
	"clocker.io/clocker/pkg/api"
)

// controller plays a controller: each connection to the stream is a function.
type controller struct {
	mu      sync.Mutex
	streams []func(ctx context.Context, f func(api.Progress) error) error
	cancels []error
	// cancelled is closed when a cancel is taken.
	cancelled chan struct{}
}

func (c *controller) next(ctx context.Context, f func(api.Progress) error) error {
	c.mu.Lock()
	s := c.streams[0]
	c.streams = c.streams[1:]
	c.mu.Unlock()
	return s(ctx, f)
}

func (c *controller) Progress(ctx context.Context, _ string, release int, f func(api.Progress) error) error {
	if release != 7 {
		return fmt.Errorf("asked for release %d", release)
	}
	return c.next(ctx, f)
}

func (c *controller) Cancel(context.Context, string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	if len(c.cancels) > 0 {
		err, c.cancels = c.cancels[0], c.cancels[1:]
	}
	if err == nil {
		close(c.cancelled)
	}
	return err
}

type notes struct {
	progress.Display
	mu   sync.Mutex
	said []string
}

func (n *notes) Note(s string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.said = append(n.said, s)
}
func (n *notes) Title(string)         {}
func (n *notes) Update(progress.Item) {}

func (c *controller) operation(d progress.Display) Operation {
	return Operation{
		App: "shop", Start: c.next, Show: progress.NewRelease(d, progress.Operation{Verb: "deploy"}), Display: d,
		Resumable: true, Cancellable: true, Patience: 5 * time.Second, Pause: time.Millisecond,
	}
}

func lost(ps ...api.Progress) func(context.Context, func(api.Progress) error) error {
	return func(_ context.Context, f func(api.Progress) error) error {
		for _, p := range ps {
			if err := f(p); err != nil {
				return err
			}
		}
		if len(ps) > 0 && ps[len(ps)-1].Done != "" {
			return nil
		}
		return fmt.Errorf("%w: reset by peer", api.ErrLost)
	}
}

func down(context.Context, func(api.Progress) error) error { return &api.UnreachableError{} }

func never() Interrupts { return Interrupts{} }

func TestALostStreamIsFoundAgain(t *testing.T) {
	c := &controller{streams: []func(context.Context, func(api.Progress) error) error{
		lost(api.Progress{Release: 7}),
		down, down,
		lost(api.Progress{Release: 7}, api.Progress{}),
		lost(api.Progress{Release: 7, Done: "ok"}),
	}}
	d := &notes{}
	res, err := Run(t.Context(), c, c.operation(d), never())
	assert.NilError(t, err)
	assert.Equal(t, res.Done, "ok")
	assert.Equal(t, res.Release, 7)
	assert.Equal(t, len(d.said), 1, "%q", d.said)
}

func TestPatienceEnds(t *testing.T) {
	c := &controller{streams: []func(context.Context, func(api.Progress) error) error{lost(api.Progress{Release: 7})}}
	for range 5000 {
		c.streams = append(c.streams, down)
	}
	o := c.operation(&notes{})
	o.Patience = 20 * time.Millisecond
	res, err := Run(t.Context(), c, o, never())
	assert.Assert(t, errors.Is(err, api.ErrUnreachable), "%v", err)
	assert.Equal(t, res.Release, 7)
}

func TestAnAnswerThatIsNoLossIsNotRetried(t *testing.T) {
	refused := &api.CallError{Status: 409, Body: api.Error{Message: "release 6 is under way"}}
	c := &controller{streams: []func(context.Context, func(api.Progress) error) error{
		func(context.Context, func(api.Progress) error) error { return refused },
	}}
	_, err := Run(t.Context(), c, c.operation(&notes{}), never())
	assert.Assert(t, errors.Is(err, api.ErrConflict))
}

func TestTheFirstInterruptTakesTheReleaseBackAndWaits(t *testing.T) {
	// The first cancel comes before the controller knows of the release.
	c := &controller{cancelled: make(chan struct{}), cancels: []error{&api.CallError{Status: 404}, nil}}
	c.streams = append(c.streams, func(_ context.Context, f func(api.Progress) error) error {
		<-c.cancelled
		for _, p := range []api.Progress{{Release: 7}, {Release: 7, Problem: "cancelled by tester"}, {Release: 7, Done: "cancelled"}} {
			if err := f(p); err != nil {
				return err
			}
		}
		return nil
	})
	first := make(chan struct{})
	close(first)
	res, err := Run(t.Context(), c, c.operation(&notes{}), Interrupts{First: first, Second: make(chan struct{})})
	assert.NilError(t, err)
	assert.DeepEqual(t, res, Result{Release: 7, Done: "cancelled", Problems: []string{"cancelled by tester"}, Interrupted: true})
}

func TestTheSecondInterruptLeavesAtOnce(t *testing.T) {
	c := &controller{cancelled: make(chan struct{})}
	c.streams = append(c.streams, func(ctx context.Context, f func(api.Progress) error) error {
		if err := f(api.Progress{Release: 7}); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	})
	first, second := make(chan struct{}), make(chan struct{})
	close(first)
	go func() {
		<-c.cancelled
		close(second)
	}()
	res, err := Run(t.Context(), c, c.operation(&notes{}), Interrupts{First: first, Second: second})
	assert.Assert(t, errors.Is(err, ErrAbandoned), "%v", err)
	assert.Equal(t, res.Release, 7)
}

func TestWhatCannotBeTakenBackIsLeft(t *testing.T) {
	c := &controller{streams: []func(context.Context, func(api.Progress) error) error{
		func(ctx context.Context, _ func(api.Progress) error) error { <-ctx.Done(); return ctx.Err() },
	}}
	o := c.operation(&notes{})
	o.Cancellable = false
	first := make(chan struct{})
	close(first)
	_, err := Run(t.Context(), c, o, Interrupts{First: first})
	assert.Assert(t, errors.Is(err, ErrAbandoned), "%v", err)
}

func TestTheEndOfTheContextIsTheFirstInterruptWhateverSignalComesWithIt(t *testing.T) {
	asked, signals := make(chan struct{}), make(chan os.Signal)
	in, end := count(asked, signals)
	close(asked)
	<-in.First
	signals <- syscall.SIGINT // taken: the channel has no room
	select {
	case <-in.Second:
		t.Fatal("one signal counts as two interrupts")
	default:
	}
	signals <- syscall.SIGTERM
	<-in.Second
	signals <- syscall.SIGINT // a third changes nothing
	end()
}

func TestASignalOfTheSystemIsAnInterrupt(t *testing.T) {
	in, stop := Signals(t.Context())
	defer stop()
	assert.NilError(t, syscall.Kill(syscall.Getpid(), syscall.SIGINT))
	<-in.First
}
