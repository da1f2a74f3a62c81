// Package underlay tells the fleet how this host is reached by others: its
// address, what the interface with that address is like, the key for encrypted
// packets, and which routes the host has of its own.
//
// It writes one record in etcd, and nothing else anywhere.
//
// Design page: docs/design/carriers.md.
package underlay

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"time"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// Announcer keeps the host's record true.
type Announcer struct {
	// Host and Name are the host's id and name.
	Host, Name string
	Store      *store.Store
	// Look reads what is to be announced. Host and Epoch are not its matter.
	Look func() (record.Underlay, error)
	// Changed signals that something may have changed.
	Changed <-chan struct{}
	Log     *slog.Logger
	// Every is how often the record is compared with the host without such a
	// signal.
	Every time.Duration
}

// retry is the wait after a try that did not get through.
const retry = time.Second

// Run announces the host until ctx ends.
func (a Announcer) Run(ctx context.Context) error {
	for {
		wait := a.Every
		if err := a.announce(ctx); err != nil {
			a.Log.Warn("host's underlay not announced, trying again", "error", err)
			wait = retry
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.Changed:
		case <-time.After(wait):
		}
	}
}

// announce writes the record if it is not true.
func (a Announcer) announce(ctx context.Context) error {
	u, err := a.Look()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	key := a.Store.Keys.Underlay(a.Host)
	it, err := store.Get[record.Underlay](ctx, a.Store, key)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	// The epoch is that of the host's addresses.
	u.Host, u.Name, u.Epoch = a.Host, a.Name, it.Value.Epoch
	if it.Revision != 0 && reflect.DeepEqual(u, it.Value) {
		return nil
	}
	_, err = a.Store.Txn().Unchanged(key, it.Revision).Put(key, u).Commit(ctx)
	return err
}
