package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"clocker.io/clocker/pkg/engine"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

const (
	// fenceLook is how often the fence looks whether something is due, fenceAsk
	// how often etcd is asked to vouch for the host, fenceWait how long one
	// answer, of etcd or of the engine, may take.
	fenceLook = 200 * time.Millisecond
	fenceAsk  = time.Second
	fenceWait = 2 * time.Second
	// fenceEarly is how long before the shortest fence containers are listed.
	fenceEarly = 500 * time.Millisecond
	// fenceStart is how long before its fence ends nothing is started any more.
	fenceStart = 2 * time.Second
)

// errFence means that a container with a fence may not start now.
var errFence = errors.New("it may run elsewhere")

// fence stops what may be replaced on other hosts when this one is cut off. etcd
// vouches for the host by an answer that shows the host's lease as this agent's:
// whoever sees that lease gone sees it after the question was sent. A container
// whose fence is F is killed when F has passed since then; the leader starts its
// successor only later.
//
// Time is that of the kernel since it started, suspended or not.
type fence struct {
	identity
	store  *store.Store
	engine Engine
	log    *slog.Logger
	now    func() time.Duration
	boot   string
	file   fenceFile
	// active says that there is, or may be, something with a fence.
	active atomic.Bool
	// guardFile is where the guard notes what it has stopped, wanted is told when
	// there is something to guard.
	guardFile fenceFile
	wanted    chan struct{}
	// noted says that active is in the file; the loop's alone.
	noted bool
	// changed is told when something was killed.
	changed func()

	// turn is held by who kills or takes a new word of etcd's: what was due
	// before it is dead when it counts.
	turn sync.Mutex

	mu sync.Mutex // guards the following fields
	// state is also in the file.
	state fenceState
	// lapses counts the times at which something may have been due.
	lapses int
}

func newFence(id identity, s *store.Store, e Engine, dir, boot string, now func() time.Duration, log *slog.Logger) *fence {
	f := &fence{identity: id, store: s, engine: e, log: log, now: now, boot: boot, file: newFenceFile(dir), changed: func() {}, guardFile: newGuardFile(dir), wanted: make(chan struct{}, 1)}
	f.active.Store(true)
	var err error
	if f.state, err = f.file.load(); err != nil {
		log.Warn("what has a fence is stopped: it is not known when etcd answered last", "error", err)
	}
	return f
}

// silence is for how long etcd has not vouched for the host, with known false
// for no one knows how long.
func (f *fence) silence() (d time.Duration, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state.silence(f.now())
}

// run watches until ctx ends, and then leaves what has a fence to nobody, or
// stops it.
func (f *fence) run(ctx context.Context) {
	var asking sync.WaitGroup
	defer asking.Wait()
	tick := time.NewTicker(fenceLook)
	defer tick.Stop()
	answered := make(chan struct{}, 1)
	answered <- struct{}{}
	asked := f.now() - fenceAsk
	for {
		select {
		case <-ctx.Done():
			f.handOver()
			return
		case <-tick.C:
		}
		if !f.active.Load() {
			continue
		}
		if d, known := f.silence(); !known || d >= model.MinFence-fenceEarly {
			f.turn.Lock()
			f.sweep(ctx)
			f.turn.Unlock()
		}
		if f.now()-asked < fenceAsk {
			continue
		}
		select {
		case <-answered:
		default:
			continue // the last question is still under way
		}
		asked = f.now()
		asking.Go(func() {
			defer func() { answered <- struct{}{} }()
			sent := f.now()
			if v, err := f.ask(ctx, ""); err == nil && v.ours {
				_, _ = f.accept(ctx, sent) // else with the next answer
			}
		})
	}
}

// vouched is what etcd says at one revision.
type vouched struct {
	// ours says that the host's lease is there and this agent's.
	ours bool
	// assigned and reported are of the task that was asked for.
	assigned, reported bool
}

// ask asks etcd, by its majority.
func (f *fence) ask(ctx context.Context, task string) (vouched, error) {
	ctx, cancel := context.WithTimeout(ctx, fenceWait)
	defer cancel()
	k := f.store.Keys
	ops := []clientv3.Op{clientv3.OpGet(k.HostLease(f.Host))}
	if task != "" {
		ops = append(ops, clientv3.OpGet(k.Assignment(f.Host, task)), clientv3.OpGet(k.Observed(f.Host, task), clientv3.WithCountOnly()))
	}
	r, err := f.store.Client().Txn(ctx).Then(ops...).Commit()
	if err != nil {
		return vouched{}, fmt.Errorf("ask etcd for the lease: %w", err)
	}
	var v vouched
	var lease record.HostLease
	if kvs := r.Responses[0].GetResponseRange().Kvs; len(kvs) == 1 && json.Unmarshal(kvs[0].Value, &lease) == nil {
		v.ours = lease.Boot == f.boot && kvs[0].Lease != 0
	}
	if task != "" {
		var a record.Assignment
		if kvs := r.Responses[1].GetResponseRange().Kvs; len(kvs) == 1 && json.Unmarshal(kvs[0].Value, &a) == nil {
			v.assigned = a.Phase == record.PhaseRun
		}
		v.reported = r.Responses[2].GetResponseRange().Count == 1
	}
	return v, nil
}

// accept takes etcd's word, given to a question that was sent at a time, unless
// something was due before and is not dead: others may run it now.
func (f *fence) accept(ctx context.Context, sent time.Duration) (lapses int, err error) {
	f.turn.Lock()
	defer f.turn.Unlock()
	if d, known := f.silence(); !known || d >= model.MinFence {
		if !f.sweep(ctx) {
			return 0, fmt.Errorf("stop what was due: the engine does not answer: %w", errFence)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state.Handed {
		return 0, fmt.Errorf("the lease is not taken yet: %w", errFence)
	}
	f.state.At, f.state.known = max(f.state.At, sent), true
	if err := f.file.save(f.state); err != nil {
		return 0, fmt.Errorf("note when etcd answered: %w", err)
	}
	return f.lapses, nil
}

// sweep kills what is due, and reports whether nothing that is due runs. turn is
// held.
func (f *fence) sweep(ctx context.Context) bool {
	d, known := f.silence()
	if !known || d >= model.MinFence {
		f.mu.Lock()
		f.lapses++
		f.mu.Unlock()
	}
	list, cancel := context.WithTimeout(ctx, fenceWait)
	defer cancel()
	ids, err := f.engine.ContainerIDs(list, engine.LabelFence)
	if err != nil {
		f.log.Error("what has a fence cannot be listed", "error", err)
		return false
	}
	f.mu.Lock()
	f.state.Killed = slices.DeleteFunc(append(f.stoppedByGuard(), f.state.Killed...), func(id string) bool { return !slices.Contains(ids, id) })
	f.mu.Unlock()
	var all sync.WaitGroup
	var failed atomic.Bool
	for _, id := range ids {
		all.Go(func() {
			if err := f.stop(ctx, id); err != nil {
				failed.Store(true)
				f.log.Error("what has a fence cannot be stopped", "container", id, "error", err)
			}
		})
	}
	all.Wait()
	return !failed.Load()
}

// stoppedByGuard are the containers that the guard has stopped since it was
// called last.
func (f *fence) stoppedByGuard() []string {
	s, err := f.guardFile.load()
	if err == nil {
		err = f.guardFile.remove()
	}
	if err != nil {
		f.log.Warn("what the guard has stopped is not known", "error", err)
	}
	return s.Killed
}

// setActive says whether there is, or may be, something with a fence.
func (f *fence) setActive(on bool) {
	if on {
		select {
		case f.wanted <- struct{}{}:
		default: // it is told already
		}
	}
	if f.active.Swap(on) == on && f.noted {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state.Active = on
	if err := f.file.save(f.state); err != nil {
		f.log.Warn("what has a fence cannot be noted", "error", err)
	} else {
		f.noted = true
	}
}

// stop kills a container when it is due.
func (f *fence) stop(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, fenceWait)
	defer cancel()
	c, err := f.engine.Container(ctx, id)
	if errors.Is(err, engine.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	d, known := f.silence()
	if c.Labels[engine.LabelFleet] != f.Fleet || !c.Up() || known && d < fenceOf(c.Labels) {
		return nil
	}
	if err := f.kill(ctx, c); err != nil {
		return err
	}
	if c, err = f.engine.Container(ctx, id); err == nil && c.Up() {
		return fmt.Errorf("container %s still runs", c.Name)
	}
	if errors.Is(err, engine.ErrNotFound) {
		return nil
	}
	return err
}

func (f *fence) kill(ctx context.Context, c engine.Container) error {
	f.mu.Lock()
	f.state.Killed = slices.Compact(slices.Sorted(slices.Values(append(f.state.Killed, c.ID))))
	err := f.file.save(f.state)
	f.mu.Unlock()
	if err != nil {
		f.log.Warn("what is stopped cannot be noted", "error", err)
	}
	f.log.Warn("etcd does not answer: the container is stopped, it may be replaced elsewhere", "container", c.Name)
	defer f.changed()
	return f.engine.Kill(ctx, c.ID)
}

// permit says whether a task's container may start now: etcd vouches for the
// host, and has both the assignment and a report of the task, so that whoever
// replaces it knows that it may run. lapses is for started.
func (f *fence) permit(ctx context.Context, task string, bound time.Duration) (lapses int, err error) {
	for end := f.now() + fenceWait; ; {
		sent := f.now()
		v, err := f.ask(ctx, task)
		switch {
		case err != nil:
			return 0, fmt.Errorf("%w: %w", err, errFence)
		case !v.ours:
			return 0, fmt.Errorf("the host has no lease: %w", errFence)
		case !v.assigned:
			return 0, fmt.Errorf("it is assigned no more: %w", errFence)
		case v.reported:
			if lapses, err = f.accept(ctx, sent); err != nil {
				return 0, err
			}
			if f.now()-sent > bound-fenceStart {
				return 0, fmt.Errorf("etcd is slow: %w", errFence)
			}
			return lapses, nil
		case f.now() > end:
			return 0, fmt.Errorf("its report is not written: %w", errFence)
		}
		if !pause(ctx, fenceLook/4) {
			return 0, ctx.Err()
		}
	}
}

// started is told that a container was started by a permission. What became due
// in between is killed.
func (f *fence) started(ctx context.Context, id string, bound time.Duration, lapses int) error {
	f.turn.Lock()
	defer f.turn.Unlock()
	f.mu.Lock()
	d, known := f.state.silence(f.now())
	late := !known || d >= bound || f.lapses != lapses
	f.state.Killed = slices.DeleteFunc(slices.Clone(f.state.Killed), func(k string) bool { return k == id })
	f.mu.Unlock()
	if !late {
		return nil
	}
	err := f.engine.Kill(ctx, id)
	f.mu.Lock()
	f.state.Killed = append(f.state.Killed, id)
	if err != nil {
		f.state.known = false // nothing counts before it is dead
	}
	f.mu.Unlock()
	return errors.Join(err, fmt.Errorf("it started late: %w", errFence))
}

// killed are the containers that the fence has stopped.
func (f *fence) killed() map[string]bool {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.state.Killed) == 0 {
		return nil
	}
	return maps.Collect(func(yield func(string, bool) bool) {
		for _, id := range f.state.Killed {
			if !yield(id, true) {
				return
			}
		}
	})
}

// taking is called before a lease is asked for: from then on it is guarded.
func (f *fence) taking() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.state.Handed {
		return nil
	}
	next := f.state
	next.Handed, next.At, next.known = false, f.now(), true
	if err := f.file.save(next); err != nil {
		return fmt.Errorf("guard what has a fence: %w", err)
	}
	f.state = next
	return nil
}

// took is told of the revision at which a lease was taken, and the host's fence
// written with it.
func (f *fence) took(revision int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state.Taken = revision
	if err := f.file.save(f.state); err != nil {
		f.log.Warn("what the lease was taken at cannot be noted", "error", err)
	}
}

// handOver leaves what has a fence running when the agent ends: etcd knows that
// nobody stops it. When etcd does not answer it is stopped.
func (f *fence) handOver() {
	if !f.active.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*fenceWait)
	defer cancel()
	f.turn.Lock()
	defer f.turn.Unlock()
	f.mu.Lock()
	taken, handed := f.state.Taken, f.state.Handed
	f.mu.Unlock()
	if handed {
		return // the lease was never taken: it is as the last run left it
	}
	k := f.store.Keys
	short, done := context.WithTimeout(ctx, fenceWait)
	defer done()
	revision, err := f.store.Txn().Exists(k.HostSpec(f.Host)).Unchanged(k.HostFence(f.Host), taken).
		Put(k.HostFence(f.Host), record.HostFence{Boot: f.boot, Unguarded: true}).Commit(short)
	f.mu.Lock()
	if d, known := f.state.silence(f.now()); err == nil && known && d < model.MinFence {
		next := f.state
		next.Handed, next.Taken = true, revision
		if err = f.file.save(next); err == nil {
			f.state = next
			f.mu.Unlock()
			f.log.Info("what has a fence runs on, and is not replaced until the agent is back")
			return
		}
	}
	f.state.known = false
	f.mu.Unlock()
	f.log.Warn("the agent ends and etcd does not know it: what has a fence is stopped", "error", err)
	f.sweep(ctx)
}

// fenceOf is a container's fence, 0 for none that can be read: then it is due at
// once when etcd is silent.
func fenceOf(labels map[string]string) time.Duration {
	d, err := time.ParseDuration(labels[engine.LabelFence])
	if err != nil {
		return 0
	}
	return d
}
