package policy

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
)

// Table keeps the kernel's table equal to a [State] that changes bit by bit.
// All methods may be called at the same time; changes that arrive together
// are committed together.
type Table struct {
	log *slog.Logger

	mu        sync.Mutex
	fleet     []netip.Prefix      // guarded by mu
	networks  map[string]Network  // by id; guarded by mu
	endpoints map[string]Endpoint // by link; guarded by mu
	loaded    bool                // the kernel has the table; guarded by mu
	// pending is the commit that gathers changes at present, nil when none
	// does; guarded by mu.
	pending *commit

	// turn is held by whoever talks to the kernel, by conn.
	turn sync.Mutex
	conn connection
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
	add, remove             []Element
	addChains, removeChains []Chain
	// replace are interval sets to be filled anew.
	replace []Set
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

// SetFleet says what the fleet's address space is.
func (t *Table) SetFleet(ps []netip.Prefix) error {
	merged := merge(ps)
	t.mu.Lock()
	if slices.Equal(merged, t.fleet) {
		t.mu.Unlock()
		return nil
	}
	t.fleet = merged
	return t.commit(op{replace: []Set{t.set(setFleet)}})
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
	return t.commit(op{
		addChains: networkChains(n),
		replace:   []Set{t.set(setEgress), t.set(setGateways)},
	})
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
	o := op{removeChains: networkChains(n), replace: []Set{t.set(setEgress), t.set(setGateways)}}
	for link, e := range t.endpoints {
		if e.Network == id {
			delete(t.endpoints, link)
			o.remove = append(o.remove, endpointElements(e)...)
			o.remove = append(o.remove, portElements(e)...)
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
	o := op{add: append(endpointElements(e), portElements(e)...)}
	if had {
		o.remove = append(endpointElements(old), portElements(old)...)
		o.add, o.remove = difference(o.add, o.remove), difference(o.remove, o.add)
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
	if err := t.commit(op{remove: append(endpointElements(e), portElements(e)...)}); err != nil {
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

// set renders one set that follows from networks and pools; callers hold mu.
func (t *Table) set(name string) Set {
	for _, s := range Render(State{Fleet: t.fleet, Networks: slices.Collect(maps.Values(t.networks))}).Sets {
		if s.Name == name {
			return s
		}
	}
	panic("policy: no set " + name)
}

// commit hands a change over to the kernel, together with others that wait
// for the same turn, and releases mu, which callers hold.
func (t *Table) commit(o op) error {
	if !t.loaded || (len(o.add)+len(o.remove)+len(o.addChains)+len(o.removeChains)+len(o.replace) == 0 && !o.reload) {
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

// elementsOf are elements of one set.
type elementsOf struct {
	set      string
	elements []Element
}

// group sorts elements by set, keeping the order otherwise.
func group(es []Element) []elementsOf {
	var out []elementsOf
	for _, e := range es {
		i := slices.IndexFunc(out, func(x elementsOf) bool { return x.set == e.Set })
		if i < 0 {
			out = append(out, elementsOf{set: e.Set})
			i = len(out) - 1
		}
		out[i].elements = append(out[i].elements, e)
	}
	return out
}

// difference is what is in a and not in b.
func difference(a, b []Element) []Element {
	return slices.DeleteFunc(slices.Clone(a), func(x Element) bool {
		return slices.ContainsFunc(b, func(y Element) bool {
			return x.Set == y.Set && slices.Equal(x.Key, y.Key) && slices.Equal(x.Data, y.Data)
		})
	})
}

// errNoTable means that the table is not in the kernel.
var errNoTable = errors.New("table is gone")
