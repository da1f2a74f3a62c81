package store

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Change is one step of a followed prefix.
type Change struct {
	// Reset means that Puts are everything there is: what is not among them
	// does not exist. It is true for the first change and after a gap.
	Reset bool
	// Revision is the revision up to which the follower has seen everything.
	Revision int64
	Puts     []Raw
	// Deletes are keys that no longer exist.
	Deletes []string
}

// Raw is a record not decoded yet.
type Raw struct {
	Key      string
	Value    []byte
	Revision int64
	Created  int64
}

// Decode reads a raw record.
func Decode[T any](r Raw) (T, error) {
	var v T
	err := json.Unmarshal(r.Value, &v)
	return v, err
}

// Follow calls f with everything under a prefix and then with each change, in
// order, until ctx ends; f is never called twice at once. Connection losses
// and compactions are bridged: after a gap f gets a change with Reset. It
// returns only ctx's error.
func (s *Store) Follow(ctx context.Context, prefix string, log *slog.Logger, f func(Change)) error {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		seen, err := s.followOnce(ctx, prefix, f)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if seen {
			wait = 50 * time.Millisecond
		}
		log.Debug("watch broken, starting again", "prefix", prefix, "error", err, "wait", wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// followOnce reads and watches until something breaks; seen reports whether
// the first read came through.
func (s *Store) followOnce(ctx context.Context, prefix string, f func(Change)) (seen bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	readCtx, done := context.WithTimeout(ctx, 5*time.Second)
	r, err := s.client.Get(readCtx, prefix, clientv3.WithPrefix())
	done()
	if err != nil {
		return false, err
	}
	first := Change{Reset: true, Revision: r.Header.Revision}
	for _, kv := range r.Kvs {
		first.Puts = append(first.Puts, Raw{string(kv.Key), kv.Value, kv.ModRevision, kv.CreateRevision})
	}
	f(first)
	w := s.client.Watch(clientv3.WithRequireLeader(ctx), prefix, clientv3.WithPrefix(), clientv3.WithRev(r.Header.Revision+1))
	for resp := range w {
		if err := resp.Err(); err != nil {
			return true, err
		}
		c := Change{Revision: resp.Header.Revision}
		// A key may change more than once in one response: the last wins.
		last := make(map[string]int, len(resp.Events))
		for i, e := range resp.Events {
			last[string(e.Kv.Key)] = i
		}
		for i, e := range resp.Events {
			if last[string(e.Kv.Key)] != i {
				continue
			}
			if e.Type == clientv3.EventTypeDelete {
				c.Deletes = append(c.Deletes, string(e.Kv.Key))
			} else {
				c.Puts = append(c.Puts, Raw{string(e.Kv.Key), e.Kv.Value, e.Kv.ModRevision, e.Kv.CreateRevision})
			}
		}
		if len(c.Puts)+len(c.Deletes) > 0 {
			f(c)
		}
	}
	return true, context.Cause(ctx)
}
