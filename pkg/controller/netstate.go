package controller

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"

	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// netState is everything that etcd holds of the fleet's networks, at one
// revision. It is read when somebody asks: the controller follows only the
// little of it that decides where replicas go.
type netState struct {
	*topology.Topology
	revision int64
	// uses are the hosts that have a network, by network id.
	uses map[string][]string
	// hosts are by id, hostUp says which agents are heard of.
	hosts map[string]record.Host
	up    map[string]bool
	// routes are the destinations of hosts' own routes, by host id.
	routes map[string][]netip.Prefix
}

func (c *Controller) netState(ctx context.Context) (*netState, error) {
	k := c.store.Keys
	r, err := c.store.Client().Get(ctx, k.Net(), clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("read networks: %w", err)
	}
	s := &netState{
		Topology: topology.New(), revision: r.Header.Revision, uses: map[string][]string{},
		hosts: map[string]record.Host{}, up: map[string]bool{},
		routes: map[string][]netip.Prefix{},
	}
	for _, kv := range r.Kvs {
		raw := store.Raw{Key: string(kv.Key), Value: kv.Value, Revision: kv.ModRevision, Created: kv.CreateRevision}
		if _, err := s.Put(k, raw); err != nil {
			c.log.Warn("record cannot be read, left out", "key", raw.Key, "error", err)
		}
	}
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	for id, h := range c.cache.hosts {
		s.hosts[id] = h.Value
		_, s.up[id] = c.cache.leases[id]
	}
	for id := range s.hosts {
		for _, text := range append(slices.Clone(c.cache.facts[id].Routes), s.Underlays[id].Routes...) {
			if p, err := netip.ParsePrefix(text); err == nil && !slices.Contains(s.routes[id], p.Masked()) {
				s.routes[id] = append(s.routes[id], p.Masked())
			}
		}
	}
	for network, hosts := range c.cache.uses {
		s.uses[network] = slices.Sorted(maps.Keys(hosts))
	}
	return s, nil
}

// hostIDs are the fleet's hosts in the order of their names.
func (s *netState) hostIDs() []string {
	return slices.SortedFunc(maps.Keys(s.hosts), func(a, b string) int {
		return cmp.Compare(s.hosts[a].Name, s.hosts[b].Name)
	})
}

// hostName is a host's name, or its id when the fleet has no such host.
func (s *netState) hostName(id string) string {
	if h, ok := s.hosts[id]; ok {
		return h.Name
	}
	return id
}

// find finds a network by its name, else by its id.
func (s *netState) find(name string) (record.Network, error) {
	for _, n := range s.Networks {
		if n.Name == name {
			return n, nil
		}
	}
	if n, ok := s.Networks[name]; ok {
		return n, nil
	}
	return record.Network{}, notFound("there is no network %s (docker clocker network ls shows them)", name)
}

// title is a network's name, or its id while it has none.
func title(n record.Network) string { return cmp.Or(n.Name, n.ID) }

// Networks implements [api.Backend].
func (c *Controller) Networks(ctx context.Context) ([]api.Network, error) {
	s, err := c.netState(ctx)
	if err != nil {
		return nil, err
	}
	out := []api.Network{}
	for _, n := range s.Networks {
		out = append(out, s.summary(n))
	}
	slices.SortFunc(out, func(a, b api.Network) int {
		return cmp.Or(cmp.Compare(title(a.Network), title(b.Network)), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

func (s *netState) summary(n record.Network) api.Network {
	return api.Network{Network: n, Hosts: len(s.uses[n.ID]), Endpoints: len(s.Endpoints[n.ID])}
}

// Network implements [api.Backend]; a network is found by name or id.
func (c *Controller) Network(ctx context.Context, name string) (api.NetworkDetail, error) {
	s, err := c.netState(ctx)
	if err != nil {
		return api.NetworkDetail{}, err
	}
	n, err := s.find(name)
	if err != nil {
		return api.NetworkDetail{}, err
	}
	d := api.NetworkDetail{Network: s.summary(n), On: []api.NetworkHost{}}
	for _, id := range s.hostIDs() {
		_, attached := s.Attached[n.ID][id]
		d.On = append(d.On, api.NetworkHost{
			Name: s.hosts[id].Name, Address: s.hosts[id].Address, Up: s.up[id],
			Present: slices.Contains(s.uses[n.ID], id), Attached: attached, MTU: s.Underlays[id].MTU,
			Error: c.networkProblem(n.ID, id),
		})
	}
	d.InUse = s.inUse(n.ID, c.replicas(s, n.ID))
	d.VIPs = s.vips(n.ID)
	d.Blocks = s.blocks(n.ID)
	for _, r := range s.rules() {
		if r.From == n.ID || r.To == n.ID {
			d.Rules = append(d.Rules, r)
		}
	}
	return d, nil
}

// replica is who has an address of a network, as replicas are wanted and seen.
type replica struct {
	app, service, name string
	// named says that others are sent to it.
	named bool
}

// replicas are those that have addresses on a network, by address.
func (c *Controller) replicas(s *netState, network string) map[string]replica {
	out := map[string]replica{}
	c.cache.mu.RLock()
	for task, o := range c.cache.observed {
		if a := o.Addresses[network]; a != "" {
			out[a] = replica{app: o.App, service: o.Service, name: c.cache.assignments[task].Value.Container.Name}
		}
	}
	c.cache.mu.RUnlock()
	for _, names := range s.Names {
		for _, r := range names {
			at := r.Networks[network]
			for _, a := range []string{at.Address, at.Address6} {
				if a != "" {
					out[a] = replica{r.App, r.Service, r.Replica, true}
				}
			}
		}
	}
	return out
}

// inUse lists the addresses in use of a network, in their order.
func (s *netState) inUse(network string, replicas map[string]replica) []api.NetworkEndpoint {
	out := []api.NetworkEndpoint{}
	endpoints := s.Endpoints[network]
	for _, a := range slices.SortedFunc(maps.Keys(endpoints), compareAddresses) {
		e := endpoints[a]
		x := api.NetworkEndpoint{
			Address: a.String(), Host: s.hostName(e.Host), Container: e.Container, Machine: e.Machine, MAC: e.MAC,
		}
		if r, ok := replicas[x.Address]; ok {
			x.App, x.Service, x.Container, x.Healthy = r.app, r.service, cmp.Or(r.name, e.Container), r.named
		}
		out = append(out, x)
	}
	return out
}

// vips lists the services with an address of their own on a network.
func (s *netState) vips(network string) []api.NetworkService {
	var out []api.NetworkService
	services := s.Services[network]
	for _, a := range slices.SortedFunc(maps.Keys(services), compareAddresses) {
		v := services[a]
		x := api.NetworkService{App: v.App, Service: v.Service}
		for _, text := range []string{v.Address, v.Address6} {
			if text != "" {
				x.Addresses = append(x.Addresses, text)
			}
		}
		out = append(out, x)
	}
	return out
}

func (s *netState) blocks(network string) []api.NetworkBlock {
	var out []api.NetworkBlock
	blocks := s.Blocks[network]
	for _, p := range slices.SortedFunc(maps.Keys(blocks), comparePrefixes) {
		b := blocks[p]
		x := api.NetworkBlock{CIDR: p.String(), State: b.State}
		if b.Host != "" {
			x.Host = s.hostName(b.Host)
		}
		out = append(out, x)
	}
	return out
}

// networkProblem is why a host has not followed what the fleet has of a
// network, as its agent last told; empty when it told nothing or got there.
func (c *Controller) networkProblem(network, host string) string {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	var last record.Event
	for _, e := range c.cache.events {
		if e.Type == "network" && e.Attrs["network"] == network && e.Attrs["host"] == host && e.At.After(last.At) {
			last = e
		}
	}
	if last.Action != "fail" {
		return ""
	}
	return last.Text
}
