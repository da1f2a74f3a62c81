package agent

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"reflect"
	"time"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// restoration is what the agent does while etcd holds an older state than the
// host: nothing that runs is disturbed for the sake of what was written before
// the restore. Its answer is at hosts/<id>/restored, which is taken away when
// there is nothing left to keep, or by a user who wants the restored state.
type restoration struct {
	identity
	store *store.Store
	log   *slog.Logger
	now   func() time.Time
	loop  *loop
}

// read looks whether etcd was restored. It comes before a whole list of
// assignments is believed: the mark is there before etcd serves.
func (r *restoration) read(ctx context.Context) (store.Item[record.Restored], error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	it, err := store.Get[record.Restored](ctx, r.store, r.store.Keys.HostRestored(r.Host))
	if errors.Is(err, store.ErrNotFound) {
		return it, nil
	}
	return it, err
}

// before makes f wait for the mark at each whole list. Until the mark could be
// read, the list is kept back.
func (r *restoration) before(ctx context.Context, f func(store.Change)) func(store.Change) {
	if r == nil {
		return f
	}
	return func(c store.Change) {
		for c.Reset {
			it, err := r.read(ctx)
			if err == nil {
				r.loop.do(func() { r.loop.setRestored(it) })
				break
			}
			r.log.Warn("whether etcd was restored cannot be read, trying again", "error", err)
			if !pause(ctx, time.Second) {
				return
			}
		}
		f(c)
	}
}

// follow keeps up with the mark; it is called with changes below hosts/<id>/.
func (r *restoration) follow(c store.Change) {
	if r == nil {
		return
	}
	key := r.store.Keys.HostRestored(r.Host)
	for _, p := range c.Puts {
		if p.Key != key {
			continue
		}
		it := store.Item[record.Restored]{Key: key, Revision: p.Revision, Created: p.Created}
		if json.Unmarshal(p.Value, &it.Value) == nil {
			r.loop.do(func() { r.loop.setRestored(it) })
		}
	}
	for _, k := range c.Deletes {
		if k == key {
			r.log.Info("the restored state counts from now on")
			r.loop.do(func() { r.loop.setRestored(store.Item[record.Restored]{}) })
		}
	}
}

// run writes down what is kept, whenever that changes.
func (r *restoration) run(ctx context.Context) {
	for pause(ctx, 500*time.Millisecond) {
		got := make(chan store.Item[record.Restored], 1)
		r.loop.do(func() { got <- r.loop.settled() })
		var it store.Item[record.Restored]
		select {
		case <-ctx.Done():
			return
		case it = <-got:
		}
		if it.Revision == 0 {
			continue
		}
		t := r.store.Txn().Unchanged(it.Key, it.Revision)
		if len(it.Value.Kept) == 0 {
			t.Delete(it.Key)
		} else {
			it.Value.Looked = r.now().UTC()
			t.Put(it.Key, it.Value)
		}
		if _, err := t.Commit(ctx); err != nil && !errors.Is(err, store.ErrConflict) && ctx.Err() == nil {
			r.log.Warn("what is kept cannot be written", "error", err)
			continue
		}
		if len(it.Value.Kept) == 0 {
			r.log.Info("etcd was restored, and this host is as it says")
		} else {
			r.log.Warn("etcd was restored from an older state: containers that it wants otherwise are kept", "containers", len(it.Value.Kept))
		}
	}
}

// setRestored takes the mark in.
func (l *loop) setRestored(it store.Item[record.Restored]) {
	if it.Created > 0 && it.Created != l.restored.Created {
		l.restoredAt = l.now()
	}
	l.restored = it
}

// restoredPatience is for how long a host that has nothing to keep waits before
// it says so: its own network and the other watches settle meanwhile.
const restoredPatience = 5 * time.Second

// settled returns the mark as it should be, when it should be written: its
// revision is 0 otherwise.
func (l *loop) settled() store.Item[record.Restored] {
	it := l.restored
	none := store.Item[record.Restored]{}
	if it.Created == 0 || !l.synced || !l.complete || !l.hostKnown {
		return none
	}
	kept := keptOf(l.view())
	if len(kept) == 0 && l.now().Sub(l.restoredAt) < restoredPatience {
		return none
	}
	if len(kept) > 0 && !it.Value.Looked.IsZero() && reflect.DeepEqual(kept, it.Value.Kept) {
		return none
	}
	it.Value.Kept = kept
	return it
}
