package bridged

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"clocker.io/clocker/netplugin/nft"
)

// guard keeps the kernel's table equal to the ports, which change one by one.
// Changes that arrive while another is under way are committed together.
type guard struct {
	log *slog.Logger

	mu sync.Mutex
	// ports are by name; guarded by mu.
	ports  map[string]port
	loaded bool
	// waiting is the commit that gathers changes at present, nil when none
	// does; guarded by mu.
	waiting *commit

	// turn is held by whoever talks to the kernel, by conn.
	turn sync.Mutex
	conn *nft.Connection
}

// commit is one transaction with the kernel, shared by all whose changes are
// in it. err may be read once done is closed.
type commit struct {
	changes []nft.Change
	done    chan struct{}
	err     error
}

// load puts the table in place, unless that has been done.
func (g *guard) load() error {
	g.turn.Lock()
	defer g.turn.Unlock()
	g.mu.Lock()
	loaded := g.loaded
	g.mu.Unlock()
	if loaded {
		return nil
	}
	return g.replace()
}

// replace loads the table as a whole. Callers hold turn.
func (g *guard) replace() error {
	g.mu.Lock()
	r := render(g.ports)
	g.loaded = true
	g.mu.Unlock()
	err := g.conn.Load(r)
	if err != nil {
		g.mu.Lock()
		g.loaded = false
		g.mu.Unlock()
	}
	return err
}

// unload takes the table away, if it still is not needed.
func (g *guard) unload(needed func() bool) error {
	g.turn.Lock()
	defer g.turn.Unlock()
	if needed() {
		return nil
	}
	g.mu.Lock()
	loaded := g.loaded
	g.loaded = false
	g.mu.Unlock()
	if !loaded {
		return nil
	}
	return g.conn.Remove(render(nil))
}

// put says what a port may do; when it returns the kernel knows.
func (g *guard) put(name string, p port) error {
	g.mu.Lock()
	old, had := g.ports[name]
	g.ports[name] = p
	if !g.loaded {
		g.mu.Unlock()
		return g.load()
	}
	c := nft.Change{Add: elements(name, p)}
	if had {
		c.Remove = elements(name, old)
		c.Add, c.Remove = difference(c.Add, c.Remove), difference(c.Remove, c.Add)
	}
	return g.commit(c) // releases mu
}

// drop forgets a port. Nothing waits for it: the port goes too.
func (g *guard) drop(name string) {
	g.mu.Lock()
	old, had := g.ports[name]
	delete(g.ports, name)
	if !had || !g.loaded {
		g.mu.Unlock()
		return
	}
	g.mu.Unlock()
	go func() {
		g.mu.Lock()
		c := nft.Change{Remove: elements(name, old)}
		if now, again := g.ports[name]; again {
			c.Remove = difference(c.Remove, elements(name, now))
		}
		if err := g.commit(c); err != nil {
			g.log.Error("port's sources left behind", "port", name, "error", err)
		}
	}()
}

// commit hands a change over to the kernel, together with others that wait for
// the same turn, and releases mu, which callers hold.
func (g *guard) commit(change nft.Change) error {
	if change.Empty() {
		g.mu.Unlock()
		return nil
	}
	if c := g.waiting; c != nil {
		c.changes = append(c.changes, change)
		g.mu.Unlock()
		<-c.done
		return c.err
	}
	c := &commit{changes: []nft.Change{change}, done: make(chan struct{})}
	g.waiting = c
	g.mu.Unlock()

	g.turn.Lock()
	g.mu.Lock()
	g.waiting = nil // who comes now is in the next transaction
	g.mu.Unlock()
	c.err = g.conn.Apply(render(nil), c.changes)
	if c.err != nil {
		g.log.Warn("table of bridged networks differs from what it should be, replacing it", "error", c.err)
		c.err = g.replace()
	}
	g.turn.Unlock()
	close(c.done)
	return c.err
}

// compare says how the kernel's table differs from what it should be; nil when
// it does not, or when none is needed.
func (g *guard) compare() error {
	g.turn.Lock()
	defer g.turn.Unlock()
	g.mu.Lock()
	loaded, ports := g.loaded, maps.Clone(g.ports)
	g.mu.Unlock()
	if !loaded {
		return nil
	}
	return g.conn.Compare(render(ports), true)
}

// mend replaces the table when it differs.
func (g *guard) mend() error {
	err := g.compare()
	if err == nil {
		return nil
	}
	g.log.Warn("table of bridged networks was changed by something else, replacing it", "reason", err)
	g.turn.Lock()
	defer g.turn.Unlock()
	return g.replace()
}

// RemoveTable removes the table, if it is there.
func RemoveTable() error {
	var c nft.Connection
	defer c.Close()
	if err := c.Remove(nft.Ruleset{Family: nft.Bridge, Table: TableName}); err != nil {
		return errors.Join(fmt.Errorf("remove table bridge %s", TableName), err)
	}
	return nil
}

// difference is what is in a and not in b.
func difference(a, b []nft.Element) []nft.Element {
	return slices.DeleteFunc(slices.Clone(a), func(x nft.Element) bool {
		return slices.ContainsFunc(b, func(y nft.Element) bool { return x.Set == y.Set && slices.Equal(x.Key, y.Key) })
	})
}
