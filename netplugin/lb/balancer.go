package lb

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"clocker.io/clocker/netplugin/nft"
	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/pkg/finding"
)

// View is the topology as the host knows it; it is a [topology.View].
type View interface {
	Read(f func(t *topology.Topology, k topology.Knowledge))
}

// Kinds are what a [Balancer] must be told of.
var Kinds = []topology.Kind{
	topology.Service, topology.Published, topology.Name, topology.Network, topology.Pool,
	topology.Endpoint, topology.Underlay, topology.Rule,
}

// Config is what a [Balancer] needs.
type Config struct {
	// Host is the host's id.
	Host string
	View View
	// Clear, which may be nil, is called before connections of a network are
	// translated that were not so far: when it returns, the network's packets
	// go where that is done, and what comes back too.
	Clear func() error
	// Routes, which may be nil, waits until the host's routes are as the
	// topology says, or ctx ends.
	Routes func(ctx context.Context) error
	Now    func() time.Time
	Log    *slog.Logger
}

// Balancer keeps the table of a host in step with the topology.
type Balancer struct {
	Config
	ports   *holder
	applied topology.Mark

	mu   sync.Mutex     // held by whoever works on the following
	conn nft.Connection // to the kernel
	// state is what the kernel's table holds, once loaded.
	state  State
	loaded bool
	// leaving are replicas that were lost but may live on: their sessions are
	// kept. The time is when they were lost.
	leaving map[Lost]time.Time
}

// New returns a balancer that has done nothing yet.
func New(c Config) *Balancer {
	return &Balancer{Config: c, ports: newHolder(c.Log), state: NewState(), leaving: map[Lost]time.Time{}}
}

const (
	// lookEvery is how often the table's presence is looked at: firewalls
	// that are loaded anew flush it.
	lookEvery = 2 * time.Second
	// compareEvery counts looks: at each of these the table is compared as a
	// whole.
	compareEvery = 15
)

// Run keeps the table until ctx ends. changed signals a change of [Kinds].
func (b *Balancer) Run(ctx context.Context, changed <-chan struct{}) error {
	defer b.ports.Close()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	look := true
	for n := 0; ; {
		err := b.Sync()
		if err == nil && look {
			err = assertDockerUser(true)
		}
		if err != nil {
			b.Log.Error("services not balanced as they should be, trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
			look = false
			continue
		case <-tick.C:
		}
		look = true
		n++
		if err := b.look(n%compareEvery == 0); err != nil {
			b.Log.Warn("table of services was changed by something else, replacing it", "reason", err)
			if err := b.reload(); err != nil {
				b.Log.Error("table of services not replaced, trying again", "error", err)
			}
		}
	}
}

// Sync brings the kernel to what the topology wants now.
func (b *Balancer) Sync() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var want State
	known, revision := false, int64(0)
	b.View.Read(func(t *topology.Topology, k topology.Knowledge) {
		if known = k != topology.Unknown; known {
			want, revision = Decide(t, b.Host), t.Revision
		}
	})
	if !known {
		return nil
	}
	b.ports.Set(want.Ports)
	want = settle(b.state, want)
	if adds(b.state, want) {
		b.awaitRoutes()
	}
	if b.Clear != nil && widens(b.state, want) {
		if err := b.Clear(); err != nil {
			b.Log.Warn("packets of newly balanced networks may go astray for a moment", "error", err)
		}
	}
	if !b.loaded {
		if err := b.conn.Load(Render(want)); err != nil {
			return err
		}
		b.state, b.loaded = want, true
		b.applied.Set(revision)
		return forget(orphans{want})
	}
	if err := b.apply(want); err != nil {
		return err
	}
	b.applied.Set(revision)
	gone := lost(b.state, want)
	b.state = want
	return b.part(gone)
}

// apply makes the change in one transaction; mu is held.
func (b *Balancer) apply(want State) error {
	c, whole := change(b.state, want)
	if !whole {
		if c.Empty() {
			return nil
		}
		err := b.conn.Apply(Render(NewState()), []nft.Change{c})
		if err == nil {
			return nil
		}
		b.Log.Warn("table of services differs from what it should be, replacing it", "error", err)
	}
	return b.conn.Load(Render(want))
}

// silence is how long no replica of a host may have a name before the host is
// taken to be dead: longer than an engine gives a container to stop.
const silence = 15 * time.Second

// part forgets flows: those of UDP, which has no sessions, as soon as a replica
// is lost; those of other protocols when its address has gone from the fleet,
// or its host seems dead. Until then sessions go on. mu is held.
func (b *Balancer) part(gone []Lost) error {
	f, now := newFlows(), b.Now()
	for _, l := range gone {
		f.add(l, false)
		b.leaving[l] = now
	}
	b.View.Read(func(t *topology.Topology, _ topology.Knowledge) {
		for l, since := range b.leaving {
			host, there := holderOf(t, l)
			if dead := there && len(t.Names[host]) == 0 && now.Sub(since) > silence; !there || dead {
				f.add(l, true)
				delete(b.leaving, l)
			} else if b.serves(l) { // it is back
				delete(b.leaving, l)
			}
		}
	})
	if f.empty() {
		return nil
	}
	return forget(f)
}

// holderOf is the id of the host that a lost replica is on; it is not there
// when its address has gone.
func holderOf(t *topology.Topology, l Lost) (host string, there bool) {
	if e, ok := t.Endpoints[l.Network][l.Replica]; ok {
		return e.Host, true
	}
	for id, u := range t.Underlays {
		if u.Address == l.Replica.String() {
			return id, true
		}
	}
	return "", false
}

// serves reports whether a replica is in the state; mu is held.
func (b *Balancer) serves(l Lost) bool {
	if l.Service.IsValid() {
		return slices.Contains(b.state.Services[l.Service].Replicas, l.Replica)
	}
	return slices.Contains(b.state.Ports[l.Port].targets(), l.Replica)
}

// look compares the kernel's table with what it should be.
func (b *Balancer) look(thorough bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.loaded {
		return nil
	}
	return b.conn.Compare(Render(b.state), thorough)
}

func (b *Balancer) reload() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.conn.Load(Render(b.state))
}

// Check implements [finding.Checker].
func (b *Balancer) Check(fix bool) ([]finding.Finding, error) {
	var found []finding.Finding
	for _, s := range b.ports.Failed() {
		found = append(found, finding.Finding{
			Part: "services", Subject: "port " + s.String(), Text: "another program on the host listens on a port that every host answers on",
			Hint: "stop that program, or publish another port",
		})
	}
	if err := b.look(true); err != nil {
		f := finding.Finding{Part: "services", Subject: "table inet " + TableName, Text: err.Error()}
		if fix {
			if err := b.reload(); err != nil {
				return found, err
			}
			f.Fixed = true
		}
		found = append(found, f)
	}
	return found, nil
}

// Remove removes the table, if it is there, and the rule in DOCKER-USER.
func Remove() error {
	if err := assertDockerUser(false); err != nil {
		return err
	}
	var c nft.Connection
	defer c.Close()
	if err := c.Remove(nft.Ruleset{Family: nft.INet, Table: TableName}); err != nil {
		return fmt.Errorf("remove table inet %s: %w", TableName, err)
	}
	return nil
}
