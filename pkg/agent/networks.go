package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"sync"
	"time"

	"clocker.io/clocker/pkg/engine"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// fleetNetworks is what the agent asks of the fleet's networks in etcd.
type fleetNetworks interface {
	// Get reads one network; store.ErrNotFound when there is none.
	Get(ctx context.Context, id string) (record.Network, error)
	// SetName tells a network's name; no error when it has that name.
	SetName(ctx context.Context, id, name string) error
	// Busy names the hosts, other than this one, with endpoints on it.
	Busy(ctx context.Context, id string) ([]string, error)
	// Remove takes a network out of the fleet.
	Remove(ctx context.Context, id string) error
}

// errNetworkTaken means that a name belongs to a network that is not ours.
var errNetworkTaken = errors.New("another network of this engine has its name or subnet")

// networks keeps the engine's networks what the fleet says, and tells
// executions under which names to join them.
type networks struct {
	identity
	log    *slog.Logger
	engine Engine
	fleet  fleetNetworks
	event  func(record.Event)
	ctx    context.Context
	calls  *once
	// kick makes the loop settle again.
	kick func()
	now  func() time.Time

	mu      sync.Mutex
	records map[string]record.Network // by fleet id; guarded by mu
	docker  map[string]engine.Network // by engine's id; guarded by mu
	removed map[string]bool           // guarded by mu
	byHand  map[string]bool           // guarded by mu
	// own are engine's ids of networks that the agent itself removes.
	own  map[string]bool     // guarded by mu
	busy map[string]bool     // fleet ids with an action under way; guarded by mu
	fail map[string]netTried // guarded by mu
	wg   sync.WaitGroup
	// seen counts changes: what has failed is tried again after one.
	seen int // guarded by mu
}

// netTried is a failure that is not repeated until something changes.
type netTried struct {
	verb  netVerb
	seen  int
	until time.Time
}

func newNetworks(ctx context.Context, id identity, e Engine, f fleetNetworks, event func(record.Event), log *slog.Logger, now func() time.Time) *networks {
	return &networks{
		identity: id, log: log, engine: e, fleet: f, event: event, ctx: ctx, now: now, calls: newOnce(), kick: func() {},
		records: map[string]record.Network{}, docker: map[string]engine.Network{}, removed: map[string]bool{},
		byHand: map[string]bool{}, own: map[string]bool{}, busy: map[string]bool{}, fail: map[string]netTried{},
	}
}

// setRecords takes in a change of the fleet's networks.
func (n *networks) setRecords(c store.Change) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seen++
	n.remember()
	next := n.records
	if c.Reset {
		next = map[string]record.Network{}
	}
	for _, raw := range c.Puts {
		r, err := store.Decode[record.Network](raw)
		if err != nil {
			n.log.Error("network cannot be read", "key", raw.Key, "error", err)
			if old, ok := n.records[path.Base(raw.Key)]; ok {
				next[old.ID] = old
			}
			continue
		}
		next[r.ID] = r
		delete(n.removed, r.ID)
	}
	for _, key := range c.Deletes {
		delete(next, path.Base(key))
		n.removed[path.Base(key)] = true
	}
	for id := range n.records {
		if _, still := next[id]; !still {
			n.removed[id] = true
		}
	}
	n.records = next
}

// remember ties the engine's networks that were made by hand here to the
// fleet's before those are forgotten: only the record tells which is which,
// and the next network may well get the same subnet.
func (n *networks) remember() {
	for id, d := range n.docker {
		d.FleetID = fleetID(d, n.records)
		n.docker[id] = d
	}
}

// resolve remembers the fleet's id of networks that do not name it
// themselves; callers hold mu.
func (n *networks) resolve() {
	for id, d := range n.docker {
		if d.FleetID == "" {
			d.FleetID = fleetID(d, n.records)
			n.docker[id] = d
		}
	}
}

// recall gives networks that an earlier run of the agent knew.
func (n *networks) recall(rs []record.Network) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range rs {
		n.records[r.ID] = r
	}
}

// known lists the fleet's networks, for the cache.
func (n *networks) known() []record.Network {
	n.mu.Lock()
	defer n.mu.Unlock()
	return values(n.records)
}

// resync replaces what is known about the engine's networks.
func (n *networks) resync(ns []engine.Network) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seen++
	was := n.docker
	n.docker = map[string]engine.Network{}
	for _, d := range ns {
		if d.FleetID == "" {
			d.FleetID = was[d.ID].FleetID
		}
		n.docker[d.ID] = d
	}
}

// engineEvent takes in that a network was made or removed on the engine.
func (n *networks) engineEvent(e engine.Event) {
	switch e.Action {
	case "create":
		n.wg.Add(1)
		go func() {
			defer n.wg.Done()
			d, err := n.engine.Network(n.ctx, e.ID)
			if err != nil || !d.Ours() {
				return
			}
			n.mu.Lock()
			n.seen++
			n.docker[d.ID] = d
			n.mu.Unlock()
			n.kick()
		}()
	case "destroy":
		n.mu.Lock()
		defer n.mu.Unlock()
		n.seen++
		d, ours := n.docker[e.ID]
		delete(n.docker, e.ID)
		if ours && !n.own[e.ID] {
			if id := fleetID(d, n.records); id != "" {
				n.byHand[id] = true
			}
		}
		delete(n.own, e.ID)
	}
}

// touch lets everything that has failed be tried again.
func (n *networks) touch() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seen++
}

// ids maps the engine's network names to the fleet's ids.
func (n *networks) ids() map[string]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make(map[string]string, len(n.docker))
	for _, d := range n.docker {
		if id := fleetID(d, n.records); id != "" {
			out[d.Name] = id
		}
	}
	return out
}

// follows says whether containers on one of the engine's networks have names:
// it is known as the fleet's, or is of its driver and about to be.
func (n *networks) follows(id, driver string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, known := n.docker[id]
	d := engine.Network{Driver: driver}
	return known || d.Ours()
}

// named says whether one of the engine's networks that are followed has a
// name.
func (n *networks) named(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, d := range n.docker {
		if d.Name == name {
			return true
		}
	}
	return false
}

// here gives the engine's network for a fleet's id.
func (n *networks) here(id string) (engine.Network, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, d := range n.docker {
		if fleetID(d, n.records) == id {
			return d, true
		}
	}
	return engine.Network{}, false
}

// ensure makes the networks that a container joins and returns the engine's
// names for them, in order.
func (n *networks) ensure(ctx context.Context, joins []record.NetworkJoin) ([]string, error) {
	names := make([]string, len(joins))
	for i, j := range joins {
		d, ok := n.here(j.ID)
		// The outcome waited for may be that of a removal under way: then
		// the next turn makes it.
		for turn := 0; !ok; turn++ {
			err := n.calls.do(ctx, j.ID, func(ctx context.Context) error { return n.make(ctx, j.ID) })
			if err != nil {
				return nil, err
			}
			if d, ok = n.here(j.ID); !ok && turn == 3 {
				return nil, fmt.Errorf("make network %s: it is removed again and again", j.ID)
			}
		}
		names[i] = d.Name
	}
	return names, nil
}

// joined are the fleet's networks of the given joins, as far as they are known.
func (n *networks) joined(joins []record.NetworkJoin) []record.Network {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []record.Network
	for _, j := range joins {
		if r, ok := n.records[j.ID]; ok {
			out = append(out, r)
		}
	}
	return out
}

// recheck looks at the engine's networks anew, when one turned out to be
// missing.
func (n *networks) recheck(ctx context.Context, joins []record.NetworkJoin) {
	if len(joins) == 0 {
		return
	}
	if ns, err := n.engine.Networks(ctx); err == nil {
		n.resync(ns)
	}
}

// make makes one network on this engine; it is called once at a time per
// network.
func (n *networks) make(ctx context.Context, id string) error {
	if _, ok := n.here(id); ok {
		return nil
	}
	n.mu.Lock()
	r, ok := n.records[id]
	n.mu.Unlock()
	if !ok {
		// The leader writes a network before the assignments that need it,
		// but watches of two prefixes keep no order between them.
		var err error
		if r, err = n.fleet.Get(ctx, id); err != nil {
			return err
		}
		n.mu.Lock()
		n.records[id] = r
		n.mu.Unlock()
	}
	made, err := n.engine.CreateNetwork(ctx, r, map[string]string{engine.LabelFleet: n.Fleet})
	if errors.Is(err, engine.ErrConflict) {
		d, inspectErr := n.engine.Network(ctx, r.Name)
		if inspectErr != nil {
			return errors.Join(err, inspectErr)
		}
		if !d.Ours() || fleetID(d, map[string]record.Network{id: r}) != id {
			return fmt.Errorf("%w: %w", errNetworkTaken, err)
		}
		n.add(d)
		return nil
	}
	if err != nil {
		return err
	}
	n.add(engine.Network{
		ID: made, Name: r.Name, Driver: engine.Driver, Subnets: subnets(r), FleetID: id,
		Labels: map[string]string{engine.LabelNetwork: id},
	})
	n.log.Info("network made", "network", r.Name, "subnet", r.Subnet)
	return nil
}

// subnets are those that a network has, of one family or of both.
func subnets(r record.Network) []string {
	return slices.DeleteFunc([]string{r.Subnet, r.Subnet6}, func(s string) bool { return s == "" })
}

func (n *networks) add(d engine.Network) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.docker[d.ID] = d
	delete(n.byHand, d.FleetID)
}

// settle carries out what must be done about networks, each in a goroutine of
// its own.
func (n *networks) settle(wanted map[string]bool, complete bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.resolve()
	actions := settle(netView{
		Records: n.records, Docker: values(n.docker), Wanted: wanted, Complete: complete,
		Removed: n.removed, ByHand: n.byHand,
	})
	for _, a := range actions {
		f, failed := n.fail[a.ID]
		if n.busy[a.ID] || failed && f.verb == a.Verb && f.seen == n.seen && n.now().Before(f.until) {
			continue
		}
		n.busy[a.ID] = true
		n.wg.Add(1)
		go n.carryOut(a)
	}
}

func (n *networks) carryOut(a netAction) {
	defer n.wg.Done()
	n.mu.Lock()
	seen := n.seen
	name := n.records[a.ID].Name
	n.mu.Unlock()
	if name == "" {
		name = a.Docker.Name
	}
	n.log.Info("network: "+string(a.Verb), "network", name, "id", a.ID, "reason", a.Reason)
	var err error
	switch a.Verb {
	case netMake:
		err = n.calls.do(n.ctx, a.ID, func(ctx context.Context) error { return n.make(ctx, a.ID) })
	case netRemove:
		err = n.calls.do(n.ctx, a.ID, func(ctx context.Context) error { return n.remove(ctx, a) })
	case netName:
		err = n.fleet.SetName(n.ctx, a.ID, a.Docker.Name)
	case netGone:
		err = n.gone(a.ID)
	}
	n.mu.Lock()
	delete(n.busy, a.ID)
	_, before := n.fail[a.ID]
	delete(n.fail, a.ID)
	if err != nil {
		n.fail[a.ID] = netTried{verb: a.Verb, seen: seen, until: n.now().Add(time.Minute)}
	} else if a.Verb == netRemove {
		delete(n.removed, a.ID)
	}
	n.mu.Unlock()
	if n.ctx.Err() != nil {
		return
	}
	if err != nil {
		n.log.Warn("network: "+string(a.Verb)+" failed", "network", name, "error", err)
	}
	if err == nil || !before {
		n.tell(a, name, err)
	}
	n.kick()
}

func (n *networks) tell(a netAction, name string, err error) {
	e := record.Event{Type: "network", Action: string(a.Verb), Subject: name, Text: a.Reason,
		Attrs: map[string]string{"host": n.Host, "network": a.ID}}
	if err != nil {
		e.Action, e.Text = "fail", fmt.Sprintf("%s: %v", a.Verb, err)
	}
	n.event(e)
}

// errInUse means that containers are attached that nobody assigned here.
var errInUse = errors.New("containers are attached to it")

// remove takes a network away from this engine, unless a container that is
// not of an assignment uses it, running or not.
func (n *networks) remove(ctx context.Context, a netAction) error {
	users, err := n.engine.NetworkUsers(ctx, a.Docker.ID)
	if err != nil {
		return err
	}
	if len(users) > 0 {
		return fmt.Errorf("remove network %s: %w: %d of them", a.Docker.Name, errInUse, len(users))
	}
	n.mu.Lock()
	n.own[a.Docker.ID] = true
	n.mu.Unlock()
	err = n.engine.RemoveNetwork(ctx, a.Docker.ID)
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		delete(n.own, a.Docker.ID)
		return err
	}
	delete(n.docker, a.Docker.ID)
	return nil
}

// gone decides about a network that a user removed with docker network rm.
func (n *networks) gone(id string) error {
	hosts, err := n.fleet.Busy(n.ctx, id)
	if err != nil {
		return err
	}
	if len(hosts) == 0 {
		err = n.fleet.Remove(n.ctx, id)
	}
	if err != nil {
		return err
	}
	n.mu.Lock()
	delete(n.byHand, id) // with the record still there it is made again
	if len(hosts) == 0 {
		delete(n.records, id) // the watch says so later
	}
	n.mu.Unlock()
	if len(hosts) > 0 {
		return fmt.Errorf("remove network from the fleet: containers on %v use it: it is made here again", hosts)
	}
	return nil
}

// wait returns when nothing is under way any more.
func (n *networks) wait() { n.wg.Wait() }
