package agent

import (
	"context"
	"log/slog"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"clocker.io/clocker/pkg/store"
)

// Simulation is an agent without a machine: the loop, its decisions, its
// reports, its names, its events and its lease are those of [Run], over an
// engine that the caller gives. What belongs to a machine is left out: facts
// and usage, the state kept on disk, the answering of DNS, and the tunnel.
//
// It is for e2e/scale, which runs a thousand of them in one process.
type Simulation struct {
	Fleet, Host string
	// Store may be shared by many agents.
	Store  *store.Store
	Engine Engine
	// Boot tells two runs for the same host apart.
	Boot string
	Log  *slog.Logger
	// Now is the clock.
	Now func() time.Time
	// LeaseSeconds is how long the host counts as alive after it was last heard
	// of, where a thousand agents share the processors of one machine; 0 means as
	// long as a real one does.
	LeaseSeconds int64
}

// Simulate works until ctx ends, as [Run] does. Like a machine that loses its
// power, it takes nothing back: its lease is left to expire.
func Simulate(ctx context.Context, s Simulation) {
	a := &agent{
		id: identity{Fleet: s.Fleet, Host: s.Host}, store: s.Store, engine: s.Engine,
		log: s.Log, now: s.Now, boot: s.Boot,
	}
	events := newJournal(a.id, a.store, a.log, a.now)
	out := newReports(a.id, a.store, a.log, a.now)
	nets := newNetworks(ctx, a.id, a.engine, etcdNetworks{a.id, a.store}, events.add, a.log, a.now)
	l := newLoop(ctx, a.id, a.engine, nets, parts{out, events}, a.log, a.now)
	nets.kick = func() { l.do(func() {}) }
	here := newPresence()
	keeper := &lease{
		identity: a.id, store: a.store, log: a.log, now: a.now, boot: a.boot,
		granted: out.setLease, kick: make(chan clientv3.LeaseID, 1), known: here.wait, ttl: s.LeaseSeconds,
	}
	out.lost = keeper.drop
	fol := &follower{identity: a.id, engine: a.engine, log: a.log, now: a.now, loop: l, nets: nets}
	fol.facts = &facts{again: make(chan struct{}, 1)} // asked, but there is no machine to look at

	var wg sync.WaitGroup
	for _, part := range []func(context.Context){
		func(context.Context) { l.run() }, out.run, events.run, keeper.run, fol.run,
		func(ctx context.Context) { l.followAssignments(ctx, a.store, nil) },
		func(ctx context.Context) {
			_ = a.store.Follow(ctx, a.store.Keys.Networks(), a.log, func(c store.Change) {
				l.do(func() { nets.setRecords(c) })
			})
		},
		func(ctx context.Context) { a.followHost(ctx, l, here, keeper, fol.facts) },
	} {
		wg.Go(func() { part(ctx) })
	}
	wg.Wait()
	nets.wait()
}
