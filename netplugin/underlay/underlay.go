// Package underlay tells the fleet how this host is reached by others: its
// address, and the MTU of the interface that has it.
//
// It writes one record in etcd, and nothing else anywhere.
//
// Design page: docs/design/network.md.
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

// Interface is the interface with the host's underlay address.
type Interface interface {
	// Underlay is its MTU in bytes.
	Underlay() (mtu int, err error)
}

// Announcer keeps the host's record true.
type Announcer struct {
	Host, Address string
	Store         *store.Store
	Interface     Interface
	Log           *slog.Logger
	// Every is how often the record is compared with the host.
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
		case <-time.After(wait):
		}
	}
}

// announce writes the record if it is not true.
func (a Announcer) announce(ctx context.Context) error {
	mtu, err := a.Interface.Underlay()
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
	u := it.Value
	u.Host, u.Address, u.MTU = a.Host, a.Address, mtu
	if it.Revision != 0 && reflect.DeepEqual(u, it.Value) {
		return nil
	}
	_, err = a.Store.Txn().Unchanged(key, it.Revision).Put(key, u).Commit(ctx)
	return err
}
