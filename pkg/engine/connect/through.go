package connect

import (
	"context"
	"net"
)

// OpenThrough is [Open] for an engine that somebody else passes connections on
// to. name is what messages call it.
func OpenThrough(ctx context.Context, name string, dial func(context.Context) (net.Conn, error), o Options) (*Conn, error) {
	o = o.withDefaults()
	t := &transport{
		url: "unix://" + DefaultSocket, host: name, close: func() error { return nil },
		dial: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		check: func(ctx context.Context) *Error {
			c, err := dial(ctx)
			if err != nil {
				return &Error{Kind: Other, Endpoint: name, Text: err.Error(), Err: err}
			}
			_ = c.Close() // nothing was sent
			return nil
		},
	}
	conn, problem := open(ctx, name, t, o)
	if problem != nil {
		return nil, problem
	}
	return conn, nil
}
