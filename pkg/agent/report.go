package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// reports writes to etcd what the loop finds out: one key per task with its
// report, and one with its names, on the agent's lease.
//
// Only the newest value of a key matters, so what changes while a write is
// under way replaces what waits; everything that waits goes in one
// transaction. Each key in it has a guard of its own:
//
//   - A report or a name is written only while the task's assignment exists,
//     and a report is deleted only when it does not. Both are decided by etcd
//     at one revision, so no report is left behind of a task that is gone, and
//     none is lost of one that is not.
//   - Every write compares the revision at which the key was last seen. A write
//     whose answer was lost may still be carried out later; then it finds
//     either the revision it expects, and is followed by a newer one, or
//     another, and does nothing.
//
// After an error nothing is known about the keys of that write: all keys of
// the host are read again before the next one, and once more some time later,
// when nothing can be under way any more.
type reports struct {
	identity
	store *store.Store
	log   *slog.Logger
	now   func() time.Time
	wake  chan struct{}
	// lost is told of a lease that etcd no longer knows.
	lost func(clientv3.LeaseID)

	mu    sync.Mutex
	cells map[string]*cell // by key; guarded by mu
	lease clientv3.LeaseID // 0 while there is none; guarded by mu
}

// cell is one key in etcd as it is and as it should be.
type cell struct {
	// task is empty for the names of a container that is of no application.
	task string
	// name says that the key holds names and not a report.
	name bool
	// want is the value; nil means that the key should not exist.
	want []byte
	// revision is the key's mod revision as last seen; 0 for none.
	revision int64
	// lease is the one that the key was written on.
	lease clientv3.LeaseID
	// dirty says that etcd may differ from want.
	dirty bool
	// changes counts changes of want: a write that has come through settles
	// the cell only if there was none meanwhile.
	changes int
}

// window is how long changes are gathered before they are written.
const window = 3 * time.Millisecond

// perWrite bounds the keys of one transaction.
const perWrite = 60

func newReports(id identity, s *store.Store, log *slog.Logger, now func() time.Time) *reports {
	return &reports{identity: id, store: s, log: log, now: now, wake: make(chan struct{}, 1), lost: func(clientv3.LeaseID) {}, cells: map[string]*cell{}}
}

func (r *reports) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// report implements reporter.
func (r *reports) report(o record.Observed, name *record.NameRecord) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.set(r.cell(o.Task, false), o)
	if name == nil {
		r.set(r.cell(o.Task, true), nil)
	} else {
		r.set(r.cell(o.Task, true), name)
	}
	r.signal()
}

// forget implements reporter.
func (r *reports) forget(task string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.set(r.cell(task, false), nil)
	r.set(r.cell(task, true), nil)
	r.signal()
}

// name implements reporter.
func (r *reports) name(container string, name *record.NameRecord) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := r.store.Keys.Name(r.Host, guestKey+shortID(container))
	c := r.cells[key]
	if c == nil {
		c = &cell{name: true}
		r.cells[key] = c
	}
	if name == nil {
		r.set(c, nil)
	} else {
		r.set(c, name)
	}
	r.signal()
}

// guestKey is how keys of names start that are of no task; tasks' ids have no
// dot.
const guestKey = "container."

// cell returns the cell of a key; callers hold mu.
func (r *reports) cell(task string, name bool) *cell {
	key := r.store.Keys.Observed(r.Host, task)
	if name {
		key = r.store.Keys.Name(r.Host, task)
	}
	c := r.cells[key]
	if c == nil {
		c = &cell{task: task, name: name}
		r.cells[key] = c
	}
	return c
}

// cellAt returns the cell of what follows the host in a key; callers hold mu.
func (r *reports) cellAt(rest string, name bool) *cell {
	c := r.cell(rest, name)
	if name && strings.HasPrefix(rest, guestKey) {
		c.task = ""
	}
	return c
}

func (r *reports) set(c *cell, v any) {
	var b []byte
	if v != nil {
		var err error
		if b, err = json.Marshal(v); err != nil {
			panic("agent: report cannot be encoded: " + err.Error()) // only strings and numbers in it
		}
	}
	// What an earlier run of the agent has written is on its lease and must be
	// written again, even when it is the same.
	earlier := c.changes == 0 && c.task == ""
	if string(b) == string(c.want) && !(b == nil && c.revision != 0) && !earlier {
		return
	}
	c.want, c.dirty = b, true
	c.changes++
}

// setLease says on which lease names are kept from now on; 0 means that there
// is none. Names are written anew on a new lease.
func (r *reports) setLease(id clientv3.LeaseID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lease = id
	for _, c := range r.cells {
		// The names of a guest that this run has not seen are not renewed: it
		// may be gone.
		if c.name && c.want != nil && c.lease != id && (c.task != "" || c.changes > 0) {
			c.dirty = true
		}
	}
	r.signal()
}

// dropLease forgets a lease that is no more, unless there is another by now.
func (r *reports) dropLease(id clientv3.LeaseID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lease == id {
		r.lease = 0
	}
}

// run writes until ctx ends.
func (r *reports) run(ctx context.Context) {
	read := false
	var again <-chan time.Time
	for wait := 50 * time.Millisecond; ; {
		if !read {
			if err := r.read(ctx); err != nil {
				if !pause(ctx, wait) {
					return
				}
				wait = min(2*wait, time.Second)
				continue
			}
			read, wait = true, 50*time.Millisecond
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
			read, again = false, nil
			continue
		case <-r.wake:
		}
		if !pause(ctx, window) {
			return
		}
		for more := true; more; {
			var err error
			if more, err = r.write(ctx); err != nil {
				if ctx.Err() != nil {
					return
				}
				r.log.Debug("reports cannot be written", "error", err)
				read, more = false, false
				again = time.After(10 * time.Second)
				r.signal()
				pause(ctx, wait)
			}
		}
	}
}

// pause waits; it returns false when ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// read learns every key of the host, and finds out which differ from what
// they should be. A key that the loop has not spoken of is left alone.
func (r *reports) read(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	resp, err := r.store.Client().Txn(ctx).Then(
		clientv3.OpGet(r.store.Keys.HostObserved(r.Host), clientv3.WithPrefix()),
		clientv3.OpGet(r.store.Keys.HostNames(r.Host), clientv3.WithPrefix()),
	).Commit()
	if err != nil {
		return fmt.Errorf("read reports: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.cells {
		c.revision, c.lease = 0, 0
		c.dirty = c.want != nil
	}
	for i, part := range resp.Responses {
		prefix := r.store.Keys.HostObserved(r.Host)
		if i == 1 {
			prefix = r.store.Keys.HostNames(r.Host)
		}
		for _, kv := range part.GetResponseRange().Kvs {
			c := r.cellAt(string(kv.Key)[len(prefix):], i == 1)
			c.revision, c.lease = kv.ModRevision, clientv3.LeaseID(kv.Lease)
			switch {
			case c.changes == 0:
				c.want = kv.Value // the loop has not decided yet
			default:
				c.dirty = string(c.want) != string(kv.Value) || c.name && c.lease != r.lease
			}
		}
	}
	r.signal()
	return nil
}

// write writes what is dirty, as much as goes into one transaction; more says
// that something is left.
func (r *reports) write(ctx context.Context) (more bool, err error) {
	type sent struct {
		key     string
		changes int
		lease   clientv3.LeaseID
		deleted bool
	}
	var ops []clientv3.Op
	var batch []sent
	r.mu.Lock()
	lease := r.lease
	for key, c := range r.cells {
		if !c.dirty || c.name && c.want != nil && r.lease == 0 {
			continue
		}
		if len(ops) == perWrite {
			more = true
			break
		}
		ops = append(ops, r.op(key, c))
		s := sent{key: key, changes: c.changes, deleted: c.want == nil}
		if c.name {
			s.lease = lease
		}
		batch = append(batch, s)
	}
	r.mu.Unlock()
	if len(ops) == 0 {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	resp, err := r.store.Client().Txn(ctx).Then(ops...).Commit()
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		r.lost(lease)
		r.dropLease(lease)
	}
	if err != nil {
		return false, fmt.Errorf("write reports: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, s := range batch {
		c := r.cells[s.key]
		t := resp.Responses[i].GetResponseTxn()
		if t.Succeeded {
			c.revision, c.lease = resp.Header.Revision, s.lease
			if s.deleted {
				c.revision = 0
			}
			// The lease may be another one since this was sent.
			if c.changes == s.changes && (s.deleted || !c.name || s.lease == r.lease) {
				c.dirty = false
				if s.deleted {
					delete(r.cells, s.key)
				}
			}
			continue
		}
		// A guard did not hold: the answer says which.
		exists, key := t.Responses[0].GetResponseRange(), t.Responses[1].GetResponseRange()
		guest := c.task == ""
		now := int64(0)
		if len(key.Kvs) > 0 {
			now = key.Kvs[0].ModRevision
		}
		stale := now != c.revision
		c.revision = now
		switch {
		case stale || guest:
			more = true // once more, with the right revision
		case exists.Count > 0 && s.deleted:
			c.dirty = false // assigned again: the loop will report
		case exists.Count == 0 && !s.deleted && c.changes == s.changes:
			// The task is assigned no more. A report there is stays until
			// the container is gone; names go at once.
			c.dirty = false
			if c.name && now != 0 {
				c.want, c.dirty, more = nil, true, true
				c.changes++
			}
		default:
			more = more || c.changes != s.changes
		}
	}
	return more, nil
}

// op is the guarded write of one cell; its answer, when a guard fails, is
// whether the assignment exists and the key's revision.
func (r *reports) op(key string, c *cell) clientv3.Op {
	assignment := r.store.Keys.Assignment(r.Host, c.task)
	guards := []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", c.revision)}
	var then clientv3.Op
	switch {
	case c.want != nil && c.task == "":
		then = clientv3.OpPut(key, string(c.want), clientv3.WithLease(r.lease))
	case c.want != nil:
		guards = append(guards, clientv3.Compare(clientv3.ModRevision(assignment), ">", 0))
		if c.name {
			then = clientv3.OpPut(key, string(c.want), clientv3.WithLease(r.lease))
		} else {
			then = clientv3.OpPut(key, string(c.want))
		}
	default:
		then = clientv3.OpDelete(key)
		if !c.name {
			guards = append(guards, clientv3.Compare(clientv3.ModRevision(assignment), "=", 0))
		}
	}
	return clientv3.OpTxn(guards, []clientv3.Op{then}, []clientv3.Op{
		clientv3.OpGet(assignment, clientv3.WithCountOnly()),
		clientv3.OpGet(key, clientv3.WithKeysOnly()),
	})
}
