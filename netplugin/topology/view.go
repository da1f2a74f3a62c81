package topology

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// View follows etcd and holds the newest [Topology].
type View struct {
	store *store.Store
	log   *slog.Logger
	file  string

	mu   sync.RWMutex
	now  *Topology // guarded by mu; its content too
	know Knowledge // guarded by mu
	// raws are the records behind now, kept to be written to the file;
	// guarded by mu.
	raws map[string]json.RawMessage

	// listeners get a signal after each change of one of their kinds; guarded
	// by mu.
	listeners map[chan struct{}]kinds
	dirty     chan struct{}

	// changedAt is when each kind changed last; guarded by mu.
	changedAt [32]int64
}

// Knowledge is how good a topology is.
type Knowledge int

// A topology may be empty because nobody has told anything yet, be what an
// earlier run wrote down, which may lack the newest, or follow etcd.
const (
	Unknown Knowledge = iota
	Remembered
	Followed
)

// saveEvery is the least time between two writes of the remembered file.
const saveEvery = 2 * time.Second

// NewView returns a view that remembers what it saw in a file of the
// directory, and starts with what that file holds.
func NewView(s *store.Store, dir string, log *slog.Logger) (*View, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	v := &View{
		store: s, log: log, file: filepath.Join(dir, "topology.json"),
		now: New(), raws: map[string]json.RawMessage{},
		listeners: map[chan struct{}]kinds{}, dirty: make(chan struct{}, 1),
	}
	b, err := os.ReadFile(v.file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return v, nil
	case err != nil:
		return nil, fmt.Errorf("read remembered networks: %w", err)
	}
	var raws map[string]json.RawMessage
	if err := json.Unmarshal(b, &raws); err != nil {
		// It only saves a look at etcd: without it the host waits for etcd.
		log.Warn("remembered networks cannot be read, waiting for etcd", "file", v.file, "error", err)
		return v, nil
	}
	for key, value := range raws {
		v.put(store.Raw{Key: key, Value: value})
	}
	v.know = Remembered
	return v, nil
}

// Run follows etcd until ctx ends. Each of the others gets every change too,
// after the view has taken it in.
func (v *View) Run(ctx context.Context, others ...func(store.Change)) error {
	go v.save(ctx)
	return v.store.Follow(ctx, v.store.Keys.Net(), v.log, func(c store.Change) {
		v.apply(c)
		for _, f := range others {
			f(c)
		}
	})
}

// kinds is a set of kinds.
type kinds uint32

func (k kinds) with(other Kind) kinds { return k | 1<<other }

// Changes returns a channel that gets a value when records of one of the kinds
// have changed since the last one was taken, until ctx ends. Without kinds it
// is told of all.
func (v *View) Changes(ctx context.Context, of ...Kind) <-chan struct{} {
	c, wanted := make(chan struct{}, 1), kinds(0)
	for _, k := range of {
		wanted = wanted.with(k)
	}
	if len(of) == 0 {
		wanted = ^wanted
	}
	v.mu.Lock()
	v.listeners[c] = wanted
	v.mu.Unlock()
	context.AfterFunc(ctx, func() {
		v.mu.Lock()
		delete(v.listeners, c)
		v.mu.Unlock()
	})
	return c
}

// Read calls f with the newest topology, which f must neither change nor keep.
func (v *View) Read(f func(t *Topology, k Knowledge)) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	f(v.now, v.know)
}

// Network returns a network by id, asking etcd when the view does not hold it
// (yet).
func (v *View) Network(ctx context.Context, id string) (record.Network, error) {
	v.mu.RLock()
	n, ok := v.now.Networks[id]
	v.mu.RUnlock()
	if ok {
		return n, nil
	}
	it, err := store.Get[record.Network](ctx, v.store, v.store.Keys.Network(id))
	if err != nil {
		return record.Network{}, err
	}
	return it.Value, nil
}

func (v *View) apply(c store.Change) {
	v.mu.Lock()
	changed := kinds(0)
	if c.Reset {
		changed = ^changed
		v.now, v.raws = New(), map[string]json.RawMessage{}
		v.know = Followed
	}
	v.now.Revision = c.Revision
	for _, r := range c.Puts {
		changed = changed.with(v.put(r))
	}
	for _, key := range c.Deletes {
		kind := v.now.Delete(v.store.Keys, key)
		changed = changed.with(kind)
		delete(v.raws, key)
	}
	changed &^= 1 << Other
	for kind := range v.changedAt {
		if changed&(1<<kind) != 0 {
			v.changedAt[kind] = c.Revision
		}
	}
	for l, wanted := range v.listeners {
		if changed&wanted != 0 {
			signal(l)
		}
	}
	if changed != 0 {
		signal(v.dirty)
	}
	v.mu.Unlock()
}

// put takes a record in and returns what it is about. Callers hold mu or are
// alone.
func (v *View) put(r store.Raw) Kind {
	kind, err := v.now.Put(v.store.Keys, r)
	if err != nil {
		v.log.Error("record cannot be read, ignored", "key", r.Key, "error", err)
		return Other
	}
	if kind != Other {
		v.raws[r.Key] = r.Value
	}
	return kind
}

// save writes the remembered file after changes. It is not synced: after a
// power loss an older file, or none, only means waiting for etcd.
func (v *View) save(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-v.dirty:
		}
		v.mu.RLock()
		b, err := json.Marshal(v.raws)
		v.mu.RUnlock()
		if err == nil {
			err = replaceFile(v.file, b)
		}
		if err != nil {
			v.log.Warn("networks not remembered", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(saveEvery):
		}
	}
}

func replaceFile(path string, b []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// ChangedAt is the last revision at which one of the kinds changed.
func (v *View) ChangedAt(of ...Kind) int64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	last := int64(0)
	for _, kind := range of {
		last = max(last, v.changedAt[kind])
	}
	return last
}
