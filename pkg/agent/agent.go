package agent

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"clocker.io/clocker/pkg/dns"
	"clocker.io/clocker/pkg/engine"
	"clocker.io/clocker/pkg/hostconfig"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
	"clocker.io/clocker/pkg/tunnel"
)

// Options say what an agent runs with.
type Options struct {
	// ConfigDir holds host.json; empty means hostconfig.Dir.
	ConfigDir string
	// StateDir is where the agent keeps what must survive it; empty means
	// hostconfig.StateDir.
	StateDir string
	// DockerHost is the engine's address; empty means its usual socket.
	DockerHost string
	Log        *slog.Logger
}

// filled has the defaults in place of what is empty.
func (o Options) filled() Options {
	o.ConfigDir, o.StateDir = cmp.Or(o.ConfigDir, hostconfig.Dir), cmp.Or(o.StateDir, hostconfig.StateDir)
	return o
}

// Run is the agent: it waits until the host belongs to a fleet, and then works
// until ctx ends. Nothing that goes away makes it give up: not the engine, not
// etcd, not the controllers.
func Run(ctx context.Context, o Options) error {
	o = o.filled()
	o.Log.Info("agent starts", "config", o.ConfigDir)
	cfg, err := hostconfig.Wait(ctx, o.ConfigDir, time.Second)
	if err != nil {
		return fmt.Errorf("start agent: %w", err)
	}
	eng, err := engine.New(o.DockerHost)
	if err != nil {
		return fmt.Errorf("start agent: %w", err)
	}
	defer func() { _ = eng.Close() }()
	var mutual *tls.Config
	if len(cfg.Controllers) > 0 {
		if mutual, err = cfg.TLS(); err != nil {
			return fmt.Errorf("start agent: %w", err)
		}
	}
	client, err := cfg.EtcdClient()
	if err != nil {
		return fmt.Errorf("start agent: %w", err)
	}
	defer func() { _ = client.Close() }()
	a := &agent{
		id: identity{Fleet: cfg.Fleet, Host: cfg.HostID}, store: store.New(client, cfg.Fleet), engine: eng,
		stateDir: o.StateDir, host: hostCheck{root: hostRoot()}, log: o.Log.With("host", cfg.Name), now: time.Now,
		boot: strconv.FormatUint(rand.Uint64(), 36), controllers: cfg.Controllers, tls: mutual, certificate: filepath.Join(o.ConfigDir, cfg.CertFile),
		names: &names{addresses: []string{hostconfig.DNSAddress, hostconfig.DNSAddress6}, port: 53, resolv: "/etc/resolv.conf", intn: rand.IntN},
	}
	a.guard = guardCommand(o)
	if mutual != nil {
		a.configDir, a.fresh = o.ConfigDir, func() (*tls.Config, error) { return cfg.Now().TLS() }
	}
	a.run(ctx)
	return nil
}

// agent wires the parts together.
type agent struct {
	id          identity
	store       *store.Store
	engine      Engine
	stateDir    string
	host        hostCheck
	log         *slog.Logger
	now         func() time.Time
	boot        string
	controllers []string
	tls         *tls.Config
	// configDir holds host.json, and fresh reads the host's certificates again;
	// empty and nil where they never change.
	configDir string
	fresh     func() (*tls.Config, error)
	// certificate is the file of the host's own; empty when there is none.
	certificate string
	// patience replaces cachePatience when it is not 0.
	patience time.Duration
	// names is nil for an agent that answers none.
	names *names
	// guard is the process that stands by for the fence; nil for none.
	guard func(ctx context.Context) *exec.Cmd
}

// names is how the host answers DNS.
type names struct {
	addresses []string
	port      int
	resolv    string
	intn      func(int) int
}

// parts is what the loop reports to.
type parts struct {
	*reports
	events *journal
}

func (p parts) event(e record.Event) { p.events.add(e) }

// run works until ctx ends and everything has stopped.
func (a *agent) run(ctx context.Context) {
	cache, err := loadCache(a.stateDir, a.id)
	if err != nil {
		a.log.Warn("going on without the state of the last run", "error", err)
	}
	log := func(part string) *slog.Logger { return a.log.With("component", part) }
	events := newJournal(a.id, a.store, log("events"), a.now)
	out := newReports(a.id, a.store, log("reports"), a.now)
	nets := newNetworks(ctx, a.id, a.engine, etcdNetworks{a.id, a.store}, events.add, log("networks"), a.now)
	l := newLoop(ctx, a.id, a.engine, nets, parts{out, events}, log("tasks"), a.now)
	l.host = a.host
	if a.patience > 0 {
		l.patience = a.patience
	}
	nets.kick = func() { l.do(func() {}) }
	if cache != nil {
		nets.recall(cache.Networks)
	}
	here := newPresence()
	keeper := &lease{
		identity: a.id, store: a.store, log: log("lease"), now: a.now, boot: a.boot,
		granted: out.setLease, kick: make(chan clientv3.LeaseID, 1), known: here.wait,
	}
	out.lost = keeper.drop
	guard := newFence(a.id, a.store, a.engine, a.stateDir, a.boot, sinceBoot, log("fence"))
	guard.changed = func() { go l.do(func() {}) }
	keeper.fence, l.fence = guard, guard
	fol := &follower{identity: a.id, engine: a.engine, log: log("engine"), now: a.now, loop: l, nets: nets}
	fol.facts = &facts{
		identity: a.id, store: a.store, log: log("facts"), now: a.now, info: fol.known, again: make(chan struct{}, 1), own: l.own,
		tick: func() { nets.kick(); a.ensureAddress() }, machine: newMachineFacts(a.engine, a.certificate),
	}
	busy := &usage{identity: a.id, store: a.store, log: log("usage"), now: a.now, machine: fol.facts.machine}
	index := dns.NewIndex(log("dns"))
	l.local = index.SetLocal
	known := &nameCache{identity: a.id, dir: a.stateDir, index: index, log: log("dns")}
	known.restore()
	keep := newKeeper(l, nets, a.id, a.stateDir, log("state"))
	l.changed = keep.signal

	var wg sync.WaitGroup
	start := func(f func(context.Context)) {
		wg.Add(1)
		go func() { defer wg.Done(); f(ctx) }()
	}
	start(func(context.Context) { l.run() })
	start(out.run)
	start(events.run)
	start(keeper.run)
	start(guard.run)
	if a.guard != nil {
		start(func(ctx context.Context) { guard.guarded(ctx, log("guard"), a.guard) })
	}
	start(fol.facts.run)
	start(busy.run)
	start(fol.run)
	start(keep.run)
	start(index.Run)
	start(known.run)
	back := &restoration{identity: a.id, store: a.store, log: log("restore"), now: a.now, loop: l}
	l.back = back
	start(func(ctx context.Context) { l.followAssignments(ctx, a.store, cache) })
	start(back.run)
	start(func(ctx context.Context) {
		_ = a.store.Follow(ctx, a.store.Keys.Networks(), log("networks"), func(c store.Change) {
			index.ApplyNetworks(c)
			l.do(func() { nets.setRecords(c); keep.signal() })
		})
	})
	start(func(ctx context.Context) { a.followHost(ctx, l, here, keeper, fol.facts) })
	start(func(ctx context.Context) {
		_ = a.store.Follow(ctx, a.store.Keys.PublishedPorts(), log("facts"), l.own.published)
	})
	behind := newBehindPlugin(a.stateDir, log("dns"))
	start(func(ctx context.Context) {
		_ = a.store.Follow(ctx, a.store.Keys.Names(), log("dns"), behind.after(ctx, index.ApplyNames))
	})
	start(func(ctx context.Context) {
		_ = a.store.Follow(ctx, a.store.Keys.Services(), log("dns"), behind.after(ctx, index.ApplyServices))
	})
	if a.names != nil {
		start(func(ctx context.Context) { a.answer(ctx, index, log("dns")) })
	}
	if len(a.controllers) > 0 {
		h := &handler{engine: a.engine, container: l.container, log: log("tunnel"), net: newNetRelay(a.engine, nets, a.stateDir, log("networks")), shells: newShells(ctx, a.engine, log("shell"))}
		t := &tunnels{ctx: ctx, open: map[string]context.CancelFunc{}, agent: tunnel.Agent{
			TLS: a.tls, Config: a.fresh, Handler: h.routes(), Log: log("tunnel"),
		}}
		t.set(a.controllers)
		if a.configDir != "" {
			start(newMembership(a.id, a.store, a.configDir, log("membership"), a.now, t.set).run)
		}
		defer t.wg.Wait()
	}
	wg.Wait()
	nets.wait()
}

// followHost learns whether etcd knows this host, and whether the key that
// shows the agent alive is still there.
func (a *agent) followHost(ctx context.Context, l *loop, here *presence, keeper *lease, f *facts) {
	dir := a.store.Keys.Hosts() + a.id.Host + "/"
	known := false
	tell := func(now bool) {
		if now == known {
			return
		}
		known = now
		here.set(now)
		l.do(func() { l.hostKnown = now })
		if now {
			f.refresh()
		} else {
			a.log.Warn("the fleet does not know this host: nothing is changed on it until it does")
		}
	}
	_ = a.store.Follow(ctx, dir, a.log, func(c store.Change) {
		l.back.follow(c)
		spec := known && !c.Reset
		for _, p := range c.Puts {
			switch path.Base(p.Key) {
			case "spec":
				spec = true
			case "lease":
				var h record.HostLease
				if json.Unmarshal(p.Value, &h) == nil && h.Boot != a.boot && !c.Reset {
					a.log.Error("another agent works for this host: end one of the two", "boot", h.Boot)
				}
			}
		}
		for _, k := range c.Deletes {
			switch path.Base(k) {
			case "spec":
				spec = false
			case "lease":
				keeper.drop(0)
			case "facts":
				f.refresh()
			}
		}
		tell(spec)
	})
}

func (a *agent) ensureAddress() {
	if a.names == nil {
		return
	}
	for _, addr := range a.names.addresses {
		if err := dns.EnsureAddress(addr); err != nil {
			a.log.Warn("names cannot be answered", "address", addr, "error", err)
		}
	}
}

// answer serves the fleet's names on this host.
func (a *agent) answer(ctx context.Context, index *dns.Index, log *slog.Logger) {
	a.ensureAddress()
	select {
	case <-ctx.Done():
		return
	case <-index.Ready(): // what is not known yet would be denied
	}
	fwd := &dns.Forwarder{File: a.names.resolv, Skip: a.names.addresses, Timeout: 2 * time.Second, Log: log, Now: a.now}
	h := &dns.Handler{Index: index, Forward: fwd.Serve, Intn: a.names.intn}
	var wg sync.WaitGroup
	for _, addr := range a.names.addresses {
		wg.Add(1)
		go func() {
			defer wg.Done()
			(&dns.Server{Address: addr, Port: a.names.port, Log: log, Handler: h}).Run(ctx)
		}()
	}
	wg.Wait()
}

func isGone(err error) bool { return errors.Is(err, engine.ErrNotFound) }
