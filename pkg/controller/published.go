package controller

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/placement"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// publishedPort is a port that every host must answer on; HostPort 0 stands
// for any.
type publishedPort = record.Published

// wantedPorts lists the ports of releases that every host answers on, in
// order. Of two that are the same, which a deploy refuses, the first stays.
func wantedPorts(releases []*record.Release, networks map[string]record.Network) []publishedPort {
	var all []publishedPort
	for _, r := range releases {
		for _, e := range r.Application.Services() {
			network := ingressNetwork(r, e, networks)
			if network == "" {
				continue
			}
			for _, p := range e.Service.Ports {
				if p.Mode == model.PortIngress {
					all = append(all, publishedPort{
						App: r.App, Service: e.ID, Network: network, HostIP: p.HostIP,
						Protocol: p.Protocol, HostPort: p.HostPort, Port: p.ContainerPort,
					})
				}
			}
		}
	}
	slices.SortStableFunc(all, func(a, b publishedPort) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.HostPort, b.HostPort),
			cmp.Compare(a.App, b.App), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Port, b.Port))
	})
	return slices.CompactFunc(all, func(a, b publishedPort) bool {
		return a == b || a.HostPort != 0 && a.HostPort == b.HostPort && a.Protocol == b.Protocol
	})
}

// ingressNetwork is the network on which hosts reach the replicas of a service
// for ports that every host answers on: the first that is not internal and
// whose connections hosts can balance; "" when there is none.
func ingressNetwork(r *record.Release, e *model.Entity, networks map[string]record.Network) string {
	for _, a := range e.Service.Networks {
		if n, ok := networks[r.Networks[a.Network]]; ok && !n.Internal && balanced(n) {
			return n.ID
		}
	}
	return ""
}

// portKey is the end of a published port's key.
func portKey(p publishedPort) string { return fmt.Sprintf("%s_%d", p.Protocol, p.HostPort) }

// settlePorts gives every wanted port its number: one that is left to the
// fleet keeps the one it has, or gets the lowest that nobody has.
func settlePorts(want []publishedPort, have map[string]record.Published, taken func(protocol string, port uint16) bool) map[string]record.Published {
	out := map[string]record.Published{}
	for _, p := range want {
		if p.HostPort != 0 {
			out[portKey(p)] = p
		}
	}
	for _, p := range want {
		if p.HostPort != 0 {
			continue
		}
		for key, h := range have {
			q := h
			q.HostPort = 0
			if _, other := out[key]; q == p && !other {
				p.HostPort = h.HostPort
			}
		}
		for n := placement.DynamicPortFirst; n <= placement.DynamicPortLast && p.HostPort == 0; n++ {
			try := p
			try.HostPort = uint16(n)
			_, other := out[portKey(try)]
			if _, had := have[portKey(try)]; !other && !had && !taken(p.Protocol, try.HostPort) {
				p = try
			}
		}
		if p.HostPort != 0 {
			out[portKey(p)] = p
		}
	}
	return out
}

// syncPublished makes the ports in etcd that every host answers on what is
// wanted.
func (c *Controller) syncPublished(ctx context.Context, want []publishedPort) error {
	fence, _ := c.lead.get()
	if fence == nil {
		return store.ErrConflict
	}
	k := c.store.Keys
	items, _, err := store.List[record.Published](ctx, c.store, k.PublishedPorts())
	if err != nil {
		return err
	}
	have, keys := map[string]record.Published{}, map[string]store.Item[record.Published]{}
	for _, it := range items {
		have[portKey(it.Value)], keys[portKey(it.Value)] = it.Value, it
	}
	hosts := c.placementHosts("", nil)
	settled := settlePorts(want, have, func(protocol string, port uint16) bool {
		for _, h := range hosts {
			if _, taken := h.Ports[placement.PortKey(model.Port{Protocol: protocol, HostPort: port})]; taken {
				return true
			}
		}
		return false
	})
	t := c.store.Txn(fence...)
	commit := func() error {
		if t.Len() == 0 {
			return nil
		}
		_, err := t.Commit(ctx)
		t = c.store.Txn(fence...)
		return err
	}
	for id, it := range keys {
		if settled[id] == (record.Published{}) {
			t.Unchanged(it.Key, it.Revision).Delete(it.Key)
		}
		if t.Full() {
			if err := commit(); err != nil {
				return err
			}
		}
	}
	for id, p := range settled {
		if have[id] != p {
			key := k.Published(p.Protocol, p.HostPort)
			t.Unchanged(key, keys[id].Revision).Put(key, p)
		}
		if t.Full() {
			if err := commit(); err != nil {
				return err
			}
		}
	}
	return commit()
}

// ingressProblems finds what keeps an application's ports from being answered
// on every host: each port that something else has, with the host.
func (c *Controller) ingressProblems(app *model.Application) []string {
	hosts := c.placementHosts(app.Name, nil)
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	var out []string
	for _, e := range app.Services() {
		for i, p := range e.Service.Ports {
			if p.Mode != model.PortIngress {
				continue
			}
			at := func(remedy, format string, args ...any) {
				out = append(out, model.Problem{
					Position: p.Position, Path: fmt.Sprintf("services[%s].ports[%d]", e.ID, i),
					Text: fmt.Sprintf(format, args...), Remedy: remedy,
				}.String())
			}
			if text, remedy := unreachable(c.networksOf(app, e)); text != "" {
				at(remedy, "a port of every host cannot lead to service %q, %s", e.ID, text)
			}
			if p.HostPort == 0 {
				continue
			}
			own := false
			if q, ok := c.cache.published[portKey(publishedPort{Protocol: p.Protocol, HostPort: p.HostPort})]; ok {
				if own = q.App == app.Name; !own {
					at("publish it on another port", "port %d/%s of every host is published by service %s of application %s", p.HostPort, p.Protocol, q.Service, q.App)
					continue
				}
			}
			for _, h := range hosts {
				if holder, taken := holds(h, p, app.Name); taken && !own {
					at("publish it on another port, or free it on that host", "port %d/%s is taken on host %s by %s", p.HostPort, p.Protocol, h.Name, holder)
				}
			}
		}
	}
	return out
}

// holds reports who, other than the application itself, has a port of a host on
// an address that p asks for too.
func holds(h placement.Host, p model.Port, app string) (holder string, taken bool) {
	every := placement.PortKey(model.Port{Protocol: p.Protocol, HostPort: p.HostPort})
	own, suffix := placement.PortKey(p), fmt.Sprintf(":%d", p.HostPort)
	for _, key := range slices.Sorted(maps.Keys(h.Ports)) {
		same := key == every || key == own ||
			own == every && strings.HasPrefix(key, p.Protocol+"/") && strings.HasSuffix(key, suffix)
		if who := h.Ports[key]; same && !strings.HasPrefix(who, app+"/") {
			return who, true
		}
	}
	return "", false
}

// networksOf are the networks of a service, as they are or will be made; the
// cache is locked.
func (c *Controller) networksOf(app *model.Application, e *model.Entity) []record.Network {
	var all []record.Network
	for _, a := range e.Service.Networks {
		for _, n := range app.Networks {
			if n.Name != a.Network {
				continue
			}
			r := record.Network{Internal: n.Internal, Driver: n.Driver}
			if id := c.cache.networkID(app.Name, n); id != "" {
				r = c.cache.networks[id]
			}
			all = append(all, r)
		}
	}
	return all
}

// unreachable says why hosts reach a service in none of its networks, and what
// to do about it; "" when they do in one.
func unreachable(networks []record.Network) (text, remedy string) {
	if len(networks) == 0 {
		return "which is in no network", "give it one, or publish the port in host mode"
	}
	driver := ""
	for _, n := range networks {
		switch {
		case n.Internal:
		case !balanced(n):
			driver = n.Driver
		default:
			return "", ""
		}
	}
	if driver != "" {
		return "whose networks are carried by the driver " + driver, "give it a network of clocker's own driver, or reach it by its addresses in that network"
	}
	return "which is in internal networks only", "give the service a network that is not internal"
}

// ingressPorts are the ports of every host that lead to an application, by
// service.
func (c *Controller) ingressPorts(app string) map[string][]model.Port {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	out := map[string][]model.Port{}
	for _, key := range slices.Sorted(maps.Keys(c.cache.published)) {
		if p := c.cache.published[key]; p.App == app {
			out[p.Service] = append(out[p.Service], model.Port{
				HostIP: p.HostIP, HostPort: p.HostPort, ContainerPort: p.Port, Protocol: p.Protocol, Mode: model.PortIngress,
			})
		}
	}
	return out
}

// portsOf are a replica's ports: its own, and those of every host.
func portsOf(a record.Assignment, ingress map[string][]model.Port) []model.Port {
	return append(slices.Clone(a.Container.Ports), ingress[a.Service]...)
}
