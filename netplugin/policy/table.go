package policy

import (
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"

	"clocker.io/clocker/netplugin/nft"
)

// Table keeps the kernel's table equal to a [State] that changes bit by bit.
// All methods may be called at the same time; changes that arrive together
// are committed together.
type Table struct {
	log *slog.Logger

	mu        sync.Mutex
	fleet     Fleet               // guarded by mu
	networks  map[string]Network  // by id; guarded by mu
	endpoints map[string]Endpoint // by link; guarded by mu
	loaded    bool                // the kernel has the table; guarded by mu
	// pending is the commit that gathers changes at present, nil when none
	// does; guarded by mu.
	pending *commit

	// turn is held by whoever talks to the kernel, by conn.
	turn sync.Mutex
	conn nft.Connection
}

// commit is one transaction with the kernel, shared by all whose changes are
// in it. err may be read once done is closed.
type commit struct {
	ops  []op
	done chan struct{}
	err  error
}

// op is one change to the table.
type op struct {
	nft.Change
	// reload replaces the table as a whole.
	reload bool
}

// NewTable returns a table that is not in the kernel yet: see [Table.Load].
func NewTable(log *slog.Logger) *Table {
	return &Table{
		log:      log,
		networks: map[string]Network{}, endpoints: map[string]Endpoint{},
	}
}

// Load replaces the whole table, or makes it, in one transaction. Until it is
// called, changes are gathered and not applied.
func (t *Table) Load() error {
	t.mu.Lock()
	t.loaded = true
	return t.commit(op{reload: true})
}

// SetFleet says what is beside what is on this host.
func (t *Table) SetFleet(f Fleet) error {
	f.Prefixes, f.Open = merge(f.Prefixes), merge(f.Open)
	t.mu.Lock()
	old := t.fleet
	if reflect.DeepEqual(f, old) {
		t.mu.Unlock()
		return nil
	}
	t.fleet = f
	if !reflect.DeepEqual(f.Openings, old.Openings) || !reflect.DeepEqual(f.Machines, old.Machines) {
		// Rare, and it changes rules: as a whole.
		return t.commit(op{reload: true})
	}
	was := fill(fleetSets, fleetElements(old))
	changed := slices.DeleteFunc(fill(fleetSets, fleetElements(f)), func(s nft.Set) bool {
		return slices.ContainsFunc(was, func(x nft.Set) bool { return reflect.DeepEqual(x, s) })
	})
	return t.commit(op{Change: nft.Change{Replace: changed}})
}

// fill declares the named sets with those of the elements that are theirs.
func fill(names []string, es []nft.Element) []nft.Set {
	sets := slices.DeleteFunc(emptySets(), func(s nft.Set) bool { return !slices.Contains(names, s.Name) })
	for i := range sets {
		for _, e := range es {
			if e.Set == sets[i].Name {
				sets[i].Elements = append(sets[i].Elements, e)
			}
		}
	}
	return sets
}

// PutNetwork adds a network, or changes it.
func (t *Table) PutNetwork(n Network) error {
	t.mu.Lock()
	old, had := t.networks[n.ID]
	if had && old == n {
		t.mu.Unlock()
		return nil
	}
	t.networks[n.ID] = n
	if had {
		// Rare, and it changes rules: as a whole.
		return t.commit(op{reload: true})
	}
	return t.commit(op{Change: nft.Change{
		AddChains: networkChains(n, t.fleet), Replace: t.networkSets(), Add: bridgeElements(n),
	}})
}

// RemoveNetwork removes a network, and endpoints that it still has.
func (t *Table) RemoveNetwork(id string) error {
	t.mu.Lock()
	n, had := t.networks[id]
	if !had {
		t.mu.Unlock()
		return nil
	}
	delete(t.networks, id)
	o := op{Change: nft.Change{RemoveChains: networkChains(n, t.fleet), Replace: t.networkSets(), Remove: bridgeElements(n)}}
	for link, e := range t.endpoints {
		if e.Network == id {
			delete(t.endpoints, link)
			o.Remove = append(o.Remove, endpointElements(e)...)
			o.Remove = append(o.Remove, portElements(e)...)
		}
	}
	return t.commit(o)
}

// PutEndpoint adds an endpoint, or changes its published ports.
func (t *Table) PutEndpoint(e Endpoint) error {
	t.mu.Lock()
	if _, ok := t.networks[e.Network]; !ok {
		t.mu.Unlock()
		return fmt.Errorf("add endpoint %s: its network %s is not on this host", e.Link, e.Network)
	}
	old, had := t.endpoints[e.Link]
	t.endpoints[e.Link] = e
	o := op{Change: nft.Change{Add: append(endpointElements(e), portElements(e)...)}}
	if had {
		o.Remove = append(endpointElements(old), portElements(old)...)
		o.Add, o.Remove = difference(o.Add, o.Remove), difference(o.Remove, o.Add)
	}
	if err := t.commit(o); err != nil {
		return err
	}
	t.forgetChanged(old.Ports, e.Ports)
	return nil
}

// RemoveEndpoint removes an endpoint and its published ports.
func (t *Table) RemoveEndpoint(link string) error {
	t.mu.Lock()
	e, had := t.endpoints[link]
	if !had {
		t.mu.Unlock()
		return nil
	}
	delete(t.endpoints, link)
	if err := t.commit(op{Change: nft.Change{Remove: append(endpointElements(e), portElements(e)...)}}); err != nil {
		return err
	}
	t.forgetChanged(e.Ports, nil)
	return nil
}

// State is what the table follows from at present.
func (t *Table) State() State {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state()
}

// state is [Table.State] for callers that hold mu.
func (t *Table) state() State {
	return State{
		Fleet: t.fleet, Networks: slices.Collect(maps.Values(t.networks)), Endpoints: slices.Collect(maps.Values(t.endpoints)),
	}
}

// networkSets are the sets that follow from the networks; callers hold mu.
func (t *Table) networkSets() []nft.Set {
	return fill(networkSets, networkElements(slices.Collect(maps.Values(t.networks))))
}

// commit hands a change over to the kernel, together with others that wait
// for the same turn, and releases mu, which callers hold.
func (t *Table) commit(o op) error {
	if !t.loaded || o.Empty() && !o.reload {
		t.mu.Unlock()
		return nil
	}
	if c := t.pending; c != nil {
		c.ops = append(c.ops, o)
		t.mu.Unlock()
		<-c.done
		return c.err
	}
	c := &commit{ops: []op{o}, done: make(chan struct{})}
	t.pending = c
	t.mu.Unlock()

	t.turn.Lock()
	t.mu.Lock()
	t.pending = nil // who comes now is in the next transaction
	t.mu.Unlock()
	c.err = t.send(c.ops)
	t.turn.Unlock()
	close(c.done)
	return c.err
}

// send applies changes in one transaction. If the kernel does not have what
// the changes rest on, the whole table is put in place instead.
func (t *Table) send(ops []op) error {
	var changes []nft.Change
	reload := false
	for _, o := range ops {
		reload = reload || o.reload
		changes = append(changes, o.Change)
	}
	if !reload {
		err := t.conn.Apply(Render(State{}), changes)
		if err == nil {
			return nil
		}
		t.log.Warn("table differs from what it should be, replacing it", "error", err)
	}
	t.mu.Lock()
	r := Render(t.state())
	t.mu.Unlock()
	return t.conn.Load(r)
}

// difference is what is in a and not in b.
func difference(a, b []nft.Element) []nft.Element {
	return slices.DeleteFunc(slices.Clone(a), func(x nft.Element) bool {
		return slices.ContainsFunc(b, func(y nft.Element) bool {
			return x.Set == y.Set && slices.Equal(x.Key, y.Key) && slices.Equal(x.Data, y.Data)
		})
	})
}
