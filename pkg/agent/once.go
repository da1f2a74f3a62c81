package agent

import (
	"context"
	"sync"
)

// once runs a function once per key at a time: who asks while it is under way
// shares its outcome. The work goes on when the one who asked first gives up,
// as long as somebody waits.
type once struct {
	mu    sync.Mutex
	calls map[string]*onceCall // guarded by mu
}

type onceCall struct {
	done    chan struct{}
	err     error // set before done is closed
	waiting int   // guarded by once.mu
	cancel  context.CancelFunc
}

func newOnce() *once { return &once{calls: map[string]*onceCall{}} }

// do runs f for key, or waits for the run under way.
func (o *once) do(ctx context.Context, key string, f func(ctx context.Context) error) error {
	o.mu.Lock()
	c := o.calls[key]
	if c == nil {
		run, cancel := context.WithCancel(context.WithoutCancel(ctx))
		c = &onceCall{done: make(chan struct{}), cancel: cancel}
		o.calls[key] = c
		go func() {
			err := f(run)
			cancel()
			o.mu.Lock()
			c.err = err
			if o.calls[key] == c {
				delete(o.calls, key)
			}
			o.mu.Unlock()
			close(c.done)
		}()
	}
	c.waiting++
	o.mu.Unlock()
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		o.mu.Lock()
		if c.waiting--; c.waiting == 0 {
			c.cancel()
			if o.calls[key] == c {
				delete(o.calls, key)
			}
		}
		o.mu.Unlock()
		return ctx.Err()
	}
}
