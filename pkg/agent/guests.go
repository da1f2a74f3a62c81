package agent

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"clocker.io/clocker/pkg/engine"
	"clocker.io/clocker/pkg/record"
)

// guest is a container that no application has, on a network of the fleet:
// made by docker run, or by docker compose. The agent does nothing to it but
// publish its names.
type guest struct {
	container engine.Container
	// name is what was published last.
	name *record.NameRecord
}

// guestEvent takes in something that happened to a container which is not of
// an application.
func (l *loop) guestEvent(e engine.Event) {
	if e.Attributes[engine.LabelSystem] != "" {
		return
	}
	g := l.guests[e.ID]
	if g == nil || !e.At.After(g.container.SeenAt) {
		return // a network's event comes before, and is what counts
	}
	if e.At.After(l.lastEvent[e.ID]) {
		l.lastEvent[e.ID] = e.At
	}
	switch {
	case e.Action == "destroy":
		l.drop(e.ID)
	case e.Action == "die":
		// Its names go now; whether the engine starts it again is looked up.
		g.container.State, g.container.Health = engine.Exited, ""
	case strings.HasPrefix(e.Action, "health_status: "):
		g.container.Health = strings.TrimPrefix(e.Action, "health_status: ")
	default:
		l.look(e.ID)
	}
}

// joinEvent takes in that a container has joined or left a network.
func (l *loop) joinEvent(e engine.Event) {
	id := e.Attributes["container"]
	if id == "" || !l.nets.follows(e.ID, e.Attributes["type"]) {
		return
	}
	if e.At.After(l.lastEvent[id]) {
		l.lastEvent[id] = e.At
	}
	if c, ok := l.containers[id]; ok {
		if t := l.tasks[c.Labels[engine.LabelTask]]; t != nil && t.Busy {
			return // what is under way ends with a look
		}
	}
	l.look(id)
}

// seeGuest takes in what the engine said about a container that is of no
// application.
func (l *loop) seeGuest(c engine.Container) {
	if c.Labels[engine.LabelSystem] != "" {
		return
	}
	ids := l.nets.ids()
	for name := range c.Joined {
		if ids[name] == "" && !l.nets.named(name) {
			continue
		}
		g := l.guests[c.ID]
		if g == nil {
			g = &guest{}
			l.guests[c.ID] = g
		}
		g.container = c
		return
	}
	l.dropGuest(c.ID)
}

func (l *loop) dropGuest(id string) {
	if _, ok := l.guests[id]; ok {
		delete(l.guests, id)
		l.out.name(id, nil)
		l.guestsMoved = true
	}
}

// publishGuests publishes names that have changed.
func (l *loop) publishGuests(ids map[string]string) {
	if !l.synced {
		return
	}
	for id, g := range l.guests {
		name := guestName(&g.container, ids)
		if reflect.DeepEqual(name, g.name) {
			continue
		}
		g.name = name
		l.guestsMoved = true
		l.out.name(id, name)
	}
}

// guestName gives the names of a container that no application has, under the
// same conditions as those of one that has; see reachable. In each network it
// has its own name, its aliases there, the start of its id and its host name,
// as with the engine's own resolver.
func guestName(c *engine.Container, ids map[string]string) *record.NameRecord {
	if c.State != engine.Running || c.Health != "" && c.Health != "healthy" {
		return nil
	}
	r := &record.NameRecord{Replica: c.Name, Networks: map[string]record.NamedAddress{}}
	for network, j := range c.Joined {
		id := ids[network]
		if id == "" || j.Address == "" && j.Address6 == "" {
			continue
		}
		aliases := append(slices.Clone(j.Aliases), shortID(c.ID), c.Hostname)
		slices.Sort(aliases)
		aliases = slices.DeleteFunc(slices.Compact(aliases), func(a string) bool { return a == "" || a == c.Name })
		r.Networks[id] = record.NamedAddress{Address: j.Address, Address6: j.Address6, Aliases: aliases}
	}
	if len(r.Networks) == 0 {
		return nil
	}
	return r
}

// shortID is the start of a container's id as docker ps shows it.
func shortID(id string) string { return id[:min(len(id), 12)] }

// tellLocal tells the index in which networks this host's containers are.
func (l *loop) tellLocal(ids map[string]string) {
	m := map[netip.Addr][]string{}
	add := func(c *engine.Container) {
		var nets []string
		var addrs []netip.Addr
		for _, network := range slices.Sorted(maps.Keys(c.Joined)) {
			id := ids[network]
			if id == "" {
				continue
			}
			j := c.Joined[network]
			for _, text := range []string{j.Address, j.Address6} {
				if a, err := netip.ParseAddr(text); err == nil {
					addrs = append(addrs, a)
				}
			}
			nets = append(nets, id)
		}
		for _, a := range addrs {
			m[a] = nets
		}
	}
	for _, c := range l.containers {
		if c.Up() {
			add(&c)
		}
	}
	for _, g := range l.guests {
		if g.container.Up() {
			add(&g.container)
		}
	}
	l.local(m)
}
