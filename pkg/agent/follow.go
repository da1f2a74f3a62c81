package agent

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"clocker.io/clocker/pkg/engine"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// presence says whether etcd knows the host.
type presence struct {
	mu    sync.Mutex
	here  bool          // guarded by mu
	comes chan struct{} // closed while here; guarded by mu
}

func newPresence() *presence { return &presence{comes: make(chan struct{})} }

func (p *presence) set(here bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case here && !p.here:
		close(p.comes)
	case !here && p.here:
		p.comes = make(chan struct{})
	}
	p.here = here
}

// wait returns true once etcd knows the host, false when ctx has ended.
func (p *presence) wait(ctx context.Context) bool {
	p.mu.Lock()
	comes := p.comes
	p.mu.Unlock()
	select {
	case <-comes:
		return true
	case <-ctx.Done():
		return false
	}
}

// follower keeps up with the engine: what happens on it, and, whenever the
// stream of events had a gap, everything that is there.
type follower struct {
	identity
	engine Engine
	log    *slog.Logger
	now    func() time.Time
	loop   *loop
	nets   *networks
	facts  *facts

	mu     sync.Mutex
	info   engine.Info // guarded by mu
	infoOK bool        // guarded by mu
}

func (f *follower) known() (engine.Info, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.info, f.infoOK
}

func (f *follower) run(ctx context.Context) {
	told := ""
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		began, err := f.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		f.loop.do(func() { f.loop.synced = false })
		if began {
			wait, told = 100*time.Millisecond, ""
		}
		if err != nil && err.Error() != told {
			told = err.Error()
			f.log.Warn("engine is away", "error", err)
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

// follow hands on events until the stream breaks.
func (f *follower) follow(ctx context.Context) (began bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := f.engine.Negotiate(ctx); err != nil {
		return false, err
	}
	info, err := f.engine.Info(ctx)
	if err != nil {
		return false, err
	}
	f.mu.Lock()
	f.info, f.infoOK = info, true
	f.mu.Unlock()
	f.facts.refresh()
	var wg sync.WaitGroup
	defer wg.Wait()
	ready := func() {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := f.resync(ctx); err != nil {
				cancel(err)
				return
			}
			f.log.Info("engine followed", "version", info.EngineVersion, "api", info.APIVersion)
		}()
		began = true
	}
	err = f.engine.Events(ctx, ready, func(e engine.Event) {
		f.loop.do(func() {
			switch e.Type {
			case "network":
				f.nets.engineEvent(e)
				if e.Action == "connect" || e.Action == "disconnect" {
					f.loop.joinEvent(e)
				}
			case "container":
				f.loop.engineEvent(e)
				if e.Action == "destroy" {
					f.nets.touch()
				}
			}
		})
	})
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return began, err
}

// looks bounds how many containers are inspected at the same time when the
// agent starts.
const looks = 8

// resync looks at everything on the engine.
func (f *follower) resync(ctx context.Context) error {
	ns, err := f.engine.Networks(ctx)
	if err != nil {
		return err
	}
	ids, err := f.engine.ContainerIDs(ctx, engine.LabelFleet+"="+f.Fleet)
	if err != nil {
		return err
	}
	for _, n := range ns {
		users, err := f.engine.NetworkUsers(ctx, n.ID)
		if err != nil && !isGone(err) {
			return err
		}
		ids = append(ids, users...)
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	seen := make([]engine.Container, len(ids))
	errs := make([]error, len(ids))
	slots := make(chan struct{}, looks)
	var wg sync.WaitGroup
	for i, id := range ids {
		slots <- struct{}{}
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer func() { <-slots }()
			at := f.now()
			seen[i], errs[i] = f.engine.Container(ctx, id)
			seen[i].SeenAt = at
		}()
	}
	wg.Wait()
	var cs []engine.Container
	for i, err := range errs {
		// One that went away meanwhile is no loss.
		if err == nil {
			cs = append(cs, seen[i])
		} else if !isGone(err) {
			return err
		}
	}
	f.loop.do(func() {
		f.nets.resync(ns)
		f.loop.resync(cs)
	})
	return nil
}

// followAssignments follows what the host must do.
func (l *loop) followAssignments(ctx context.Context, s *store.Store, cache *cached) {
	answered := make(chan struct{})
	if cache != nil {
		go func() {
			// etcd's own word is better, if it comes soon.
			select {
			case <-answered:
			case <-ctx.Done():
			case <-time.After(l.patience):
				l.log.Warn("etcd does not answer, going on with what it said last")
				l.do(func() {
					if l.known {
						return
					}
					l.recall(cache.Observed)
					l.setAssignments(cache.change(s.Keys), false)
				})
			}
		}()
	}
	first := true
	_ = s.Follow(ctx, s.Keys.HostAssignments(l.Host), l.log, l.back.before(ctx, func(c store.Change) {
		if first {
			first = false
			close(answered)
			reported := l.reported(ctx, s)
			l.do(func() {
				if cache != nil {
					l.recall(cache.Observed)
				}
				l.recall(reported)
			})
		}
		l.own.tasks(c)
		l.do(func() { l.setAssignments(c, true) })
	}))
}

// cachePatience is how long a starting agent waits for etcd before it goes by
// its cache.
const cachePatience = 5 * time.Second

// reported reads what an earlier run has reported. Without it the agent still
// works: restarts asked for long ago count as done.
func (l *loop) reported(ctx context.Context, s *store.Store) []record.Observed {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	items, _, err := store.List[record.Observed](ctx, s, s.Keys.HostObserved(l.Host))
	if err != nil {
		l.log.Warn("earlier reports cannot be read", "error", err)
	}
	var os []record.Observed
	for _, it := range items {
		os = append(os, it.Value)
	}
	return os
}
