package command

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"clocker.io/clocker/cli-plugin/follow"
	"clocker.io/clocker/cli-plugin/progress"
	"clocker.io/clocker/pkg/api"
)

// How a lost stream is looked for again.
const (
	streamPatience = 30 * time.Second
	streamPause    = 500 * time.Millisecond
)

// operation is what the verbs that change an application have in common.
type operation struct {
	// verb is "deploy", "stop", "start", "restart" or "rm"; title what the
	// user reads while it goes on.
	verb, title string
	app         string
	services    []string
	start       func(ctx context.Context, f func(api.Progress) error) error
	wait, quiet bool
}

// follow carries an operation out to its end, shown on standard error. Its
// error says what has become of the application.
func (e *Env) follow(ctx context.Context, c *api.Client, o operation) (follow.Result, error) {
	in, stop := follow.Signals(ctx)
	defer stop()
	display := progress.New(e.cli.Err(), o.title, o.quiet, e.clock)
	began := e.clock.Now()
	show := progress.NewRelease(display, progress.Operation{Verb: o.verb, Services: o.services, Wait: o.wait})
	res, err := follow.Run(ctx, c, follow.Operation{
		App:         o.app,
		Start:       o.start,
		Show:        show,
		Display:     display,
		Resumable:   o.verb == "deploy",
		Cancellable: o.verb == "deploy",
		Patience:    streamPatience,
		Pause:       streamPause,
	}, in)
	display.Close()
	if err != nil {
		return res, o.broken(res, err)
	}
	switch {
	case o.quiet || res.Done != "ok":
	case o.verb == "deploy" && !show.Changed():
		e.say("%s is as the file says%s: nothing to do", o.app, release(res.Release))
	default:
		e.say("%s in %.1fs", o.done(res.Release), e.clock.Now().Sub(began).Seconds())
	}
	return res, o.outcome(res)
}

func (o operation) done(n int) string {
	switch o.verb {
	case "deploy":
		return o.app + " deployed" + release(n)
	case "rm":
		return o.app + " removed"
	case "stop":
		return o.app + " stopped"
	}
	return o.app + " " + o.verb + "ed"
}

func release(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" (release %d)", n)
}

// broken says what is known when the stream ended too early.
func (o operation) broken(res follow.Result, err error) error {
	look := "docker clocker ps " + o.app
	switch {
	case errors.Is(err, follow.ErrAbandoned):
		return textError{fmt.Errorf("%s %s: left while it goes on%s: %s shows how far it is", o.verb, o.app, release(res.Release), look), err}
	case errors.Is(err, api.ErrLost), errors.Is(err, api.ErrUnreachable) && res.Release > 0:
		where := "it may go on"
		if res.Release > 0 {
			where = "it goes on"
		}
		return textError{fmt.Errorf("%s %s: %w\n%s without this command%s: %s shows how far it is", o.verb, o.app, err, where, release(res.Release), look), err}
	}
	return err
}

// outcome turns the last word of the stream into an error.
func (o operation) outcome(res follow.Result) error {
	problems := strings.Join(res.Problems, "\n")
	if problems != "" {
		problems = "\n" + problems
	}
	head := o.verb + " " + o.app
	switch {
	case res.Interrupted && res.Done == "cancelled":
		return verdict{errInterrupted, head + ": interrupted" + release(res.Release) + ": what was begun has been taken back" + problems}
	case res.Interrupted && res.Done == "ok":
		return verdict{errInterrupted, head + ": interrupted too late" + release(res.Release) + ": it is done"}
	case res.Interrupted:
		return verdict{errInterrupted, head + ": interrupted" + release(res.Release) + problems}
	case res.Done == "ok":
		return nil
	case res.Done == "conflict":
		return verdict{errConflict, head + ": something else changed meanwhile: try again" + problems}
	case res.Done == "cancelled":
		return errors.New(head + ": taken back by another user" + release(res.Release) + problems)
	case o.verb == "deploy" && res.Release > 0:
		return errors.New(head + ": failed and taken back" + release(res.Release) + problems)
	}
	return errors.New(head + ": failed" + problems)
}
