package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"clocker.io/clocker/pkg/record"
)

// Deploy sends an application and calls f with each line of the progress. It
// returns nil once a line had Done set, whatever it said; [ErrLost] when the
// stream ended before that; f's error when f gives one, which leaves the
// release under way.
func (c *Client) Deploy(ctx context.Context, r DeployRequest, f func(Progress) error) error {
	return c.progress(ctx, call{method: http.MethodPost, path: "/applications", body: r, stream: true}, f)
}

// Progress follows a release that was started before, as [Client.Deploy] does.
// The stream begins with what is known already.
func (c *Client) Progress(ctx context.Context, app string, release int, f func(Progress) error) error {
	q := url.Values{"release": {strconv.Itoa(release)}}
	return c.progress(ctx, call{method: http.MethodGet, path: appPath(app) + "/progress", query: q, stream: true}, f)
}

// Remove takes an application away, with progress as in [Client.Deploy].
func (c *Client) Remove(ctx context.Context, app string, f func(Progress) error) error {
	return c.progress(ctx, call{method: http.MethodDelete, path: appPath(app), stream: true}, f)
}

// Operate stops, starts or restarts services of an application, or all of them
// when services is empty. The operation is "stop", "start" or "restart".
func (c *Client) Operate(ctx context.Context, app, operation string, services []string, f func(Progress) error) error {
	q := url.Values{}
	for _, s := range services {
		q.Add("service", s)
	}
	return c.progress(ctx, call{method: http.MethodPost, path: appPath(app) + "/" + operation, query: q, stream: true}, f)
}

// RemoveHost takes a host's work, keys and certificate away. With force a host
// that does not answer is given up, and work that has no other place stops.
func (c *Client) RemoveHost(ctx context.Context, host string, force bool, f func(Progress) error) error {
	q := url.Values{}
	if force {
		q.Set("force", "1")
	}
	return c.progress(ctx, call{method: http.MethodDelete, path: hostPath(host), query: q, stream: true}, f)
}

// maxSilence is how long a stream may carry nothing: three of the server's
// heartbeats.
const maxSilence = 3 * heartbeat

func (c *Client) progress(ctx context.Context, r call, f func(Progress) error) error {
	done := false
	err := readLines(ctx, c, r, func(p Progress) error {
		if err := f(p); err != nil {
			return err
		}
		if p.Done != "" {
			done = true
			return io.EOF
		}
		return nil
	})
	if err == nil && !done {
		return fmt.Errorf("%w: the answer ends in the middle", ErrLost)
	}
	return err
}

// Events calls f with the fleet's events after the one with id since, or all
// that are kept when it is empty. With follow it goes on until ctx ends or the
// connection is lost.
func (c *Client) Events(ctx context.Context, follow bool, since string, f func(record.Event) error) error {
	q := url.Values{}
	if follow {
		q.Set("follow", "1")
	}
	if since != "" {
		q.Set("since", since)
	}
	err := readLines(ctx, c, call{method: http.MethodGet, path: "/events", query: q, stream: true}, func(e record.Event) error {
		if e.ID == "" { // shows only that the stream lives
			return nil
		}
		return f(e)
	})
	if err == nil && follow {
		return fmt.Errorf("%w: the stream of events ends", ErrLost)
	}
	return err
}

// readLines calls f with each JSON value of the answer. It returns nil when the
// answer ends or f returns io.EOF, f's other errors as they are, and ErrLost
// when the connection breaks or is silent for too long.
func readLines[T any](ctx context.Context, c *Client, r call, f func(T) error) error {
	res, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	silence := time.AfterFunc(maxSilence, func() { _ = res.Body.Close() })
	defer silence.Stop()
	d := json.NewDecoder(res.Body)
	for {
		var v T
		silence.Reset(maxSilence)
		err := d.Decode(&v)
		if !silence.Stop() {
			err = fmt.Errorf("silent for %s", maxSilence)
		}
		switch {
		case err != nil && ctx.Err() != nil: // also when the server was faster to end the answer
			return context.Cause(ctx)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("%w: %w", ErrLost, err)
		}
		if err := f(v); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// LogOptions say which lines of a task's log are wanted.
type LogOptions struct {
	// Follow goes on with new lines until the container is gone.
	Follow bool
	// Tail is the number of last lines, or "all" or "" for all.
	Tail string
	// Since is a time in RFC 3339 or seconds since 1970; empty for the start.
	Since string
	// Timestamps puts the engine's time before each line.
	Timestamps bool
}

// Logs returns a task's log in the engine's multiplexed form (stdcopy), which
// the caller closes.
func (c *Client) Logs(ctx context.Context, task string, o LogOptions) (io.ReadCloser, error) {
	res, err := c.do(ctx, call{method: http.MethodGet, path: taskPath(task) + "/logs", query: o.query(), stream: true})
	if err != nil {
		return nil, err
	}
	return res.Body, nil
}

func (o LogOptions) query() url.Values {
	q := url.Values{}
	if o.Follow {
		q.Set("follow", "1")
	}
	if o.Tail != "" {
		q.Set("tail", o.Tail)
	}
	if o.Since != "" {
		q.Set("since", o.Since)
	}
	if o.Timestamps {
		q.Set("timestamps", "1")
	}
	return q
}
