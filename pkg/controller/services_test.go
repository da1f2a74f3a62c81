package controller

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"pgregory.net/rapid"

	"clocker.io/clocker/ipam"
	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/placement"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
	"clocker.io/clocker/pkg/store/storetest"
)

// Services come and go in networks of all sizes that hosts have blocks of:
// each has one address, of its own, in a block that is the controller's, keeps
// it, and blocks without services are given back.
func TestPlanAddresses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.SampledFrom([]int{29, 28, 26, 24}).Draw(t, "bits")
		subnet := netip.PrefixFrom(netip.MustParseAddr("10.208.0.0"), bits)
		n := record.Network{
			ID: "n", Subnet: subnet.String(), Gateway: subnet.Addr().Next().String(), BlockBits: ipam.BlockBits(subnet),
			Subnet6: "fd00:7::/64", Gateway6: "fd00:7::1", BlockBits6: 122,
		}
		layouts, err := registry.Layouts(n)
		assert.NilError(t, err)
		h := holdings{network: "n", layouts: layouts, services: map[string]record.Service{}, blocks: map[netip.Prefix]bool{}}
		for _, i := range rapid.SliceOfDistinct(rapid.IntRange(0, layouts[0].Count()-1), rapid.ID).Draw(t, "hosts' blocks") {
			h.blocks[layouts[0].Block(i)] = false
		}
		for range 4 {
			var want []serviceIn
			for _, i := range rapid.SliceOfDistinct(rapid.IntRange(0, 40), rapid.ID).Draw(t, "services") {
				want = append(want, serviceIn{"n", "app", fmt.Sprint("s", i)})
			}
			p := planAddresses(h, want)
			before := map[string]record.Service{}
			for _, s := range h.services {
				before[s.Service] = s
			}
			for _, key := range p.remove {
				delete(h.services, key)
			}
			for _, b := range p.free {
				assert.Assert(t, h.blocks[b])
				delete(h.blocks, b)
			}
			for _, b := range p.claim {
				_, there := h.blocks[b]
				assert.Assert(t, !there, "block %s is somebody's", b)
				h.blocks[b] = true
			}
			for key, s := range p.add {
				h.services[key] = s
			}
			h.check(t, want, before, p)
		}
	})
}

func (h holdings) check(t *rapid.T, want []serviceIn, before map[string]record.Service, p addressPlan) {
	seen, blocks := map[netip.Addr]bool{}, map[netip.Prefix]bool{}
	for key, s := range h.services {
		assert.Assert(t, key == s.Address || key == s.Address6)
		assert.Assert(t, slices.Contains(want, serviceIn{"n", s.App, s.Service}))
		if old, had := before[s.Service]; had {
			assert.Equal(t, old, s)
		}
		for i, text := range []string{s.Address, s.Address6} {
			if text == "" {
				continue
			}
			a := netip.MustParseAddr(text)
			assert.Assert(t, !seen[a], "%s twice", a)
			_, reserved := h.layouts[i].Reserved(a)
			assert.Assert(t, !reserved)
			seen[a] = true
			in := false
			for b, ours := range h.blocks {
				if ours && b.Contains(a) {
					in, blocks[b] = true, true
				}
			}
			assert.Assert(t, in, "%s is in no block of services", a)
		}
	}
	assert.Equal(t, len(h.services)+len(p.without), len(want))
	for b, ours := range h.blocks {
		assert.Assert(t, !ours || blocks[b], "block %s is kept for nothing", b)
	}
}

// In a small network containers come first.
func TestServicesLeaveRoomForReplicas(t *testing.T) {
	app := application("app", 2, 2)
	release := &record.Release{App: "app", Application: app, Networks: map[string]string{model.DefaultNetwork: "n"}}
	wanted := func(subnet, segment string) int {
		return len(wantedServices([]*record.Release{release}, map[string]record.Network{"n": {ID: "n", Subnet: subnet, Segment: segment}}))
	}
	other := map[string]record.Network{"n": {ID: "n", Subnet: "10.0.0.0/20", Driver: "macvlan"}}
	assert.Equal(t, len(wantedServices([]*record.Release{release}, other)), 0)
	assert.Equal(t, wanted("10.0.0.0/20", "routed"), 2)
	assert.Equal(t, wanted("10.0.0.0/29", "routed"), 1) // 5 addresses, 4 replicas
	assert.Equal(t, wanted("10.0.0.0/20", "bridged"), 2)
	app.Entities[0].Service.EndpointMode = model.EndpointDNSRR
	assert.Equal(t, wanted("10.0.0.0/20", "routed"), 1)
}

// services are the addresses of services in etcd, by service.
func services(t *testing.T, s *store.Store) map[string]string {
	t.Helper()
	items, _, err := store.List[record.Service](t.Context(), s, s.Keys.Services())
	assert.NilError(t, err)
	out := map[string]string{}
	for _, it := range items {
		out[it.Value.App+"."+it.Value.Service] = it.Value.Address
	}
	return out
}

func TestServicesHaveAddresses(t *testing.T) {
	client := storetest.Start(t)
	c, _ := newController(t, client, "c1")
	playAgents(t, client, "h1", "h2")
	c.awaitLead(t)
	must := func(app *model.Application) {
		t.Helper()
		done, problems, err := deploy(c, app)
		assert.NilError(t, err)
		assert.Equal(t, done, "ok", problems)
	}
	one := application("one", 3, 2)
	must(one)
	await(t, func() bool { return len(services(t, c.store)) == 3 })
	first := services(t, c.store)

	// One more service and more replicas: the others keep theirs.
	must(application("one", 4, 3))
	await(t, func() bool { return len(services(t, c.store)) == 4 })
	for name, address := range first {
		assert.Equal(t, services(t, c.store)[name], address)
	}
	two := application("one", 4, 3)
	two.Entities[0].Service.EndpointMode = model.EndpointDNSRR
	must(two)
	await(t, func() bool { return len(services(t, c.store)) == 3 })
	assert.NilError(t, c.Remove(t.Context(), "one", func(api.Progress) error { return nil }))
	await(t, func() bool { return len(services(t, c.store)) == 0 })
	blocks, _, err := store.List[record.Block](t.Context(), c.store, c.store.Keys.Blocks())
	assert.NilError(t, err)
	assert.Equal(t, len(blocks), 0)
}

// A service without an address gets one when hosts give blocks back, though
// no application changes.
func TestServiceGetsAnAddressOnceOneIsFree(t *testing.T) {
	client := storetest.Start(t)
	c, _ := newController(t, client, "c1")
	playAgents(t, client, "h1")
	c.awaitLead(t)
	one := application("one", 1, 1)
	one.Networks[0].Subnet = "10.9.0.0/24"
	one.Entities[0].Service.EndpointMode = model.EndpointDNSRR
	_, _, err := deploy(c, one)
	assert.NilError(t, err)
	networks, _, err := store.List[record.Network](t.Context(), c.store, c.store.Keys.Networks())
	assert.NilError(t, err)
	assert.Equal(t, len(networks), 1)
	n := networks[0].Value
	layouts, err := registry.Layouts(n)
	assert.NilError(t, err)
	take := c.store.Txn()
	for i := range layouts[0].Count() {
		take.Put(c.store.Keys.Block(n.ID, layouts[0].Block(i).String()), record.Block{Host: "h1", State: record.BlockOwned})
	}
	_, err = take.Commit(t.Context())
	assert.NilError(t, err)

	vip := application("one", 1, 1)
	vip.Networks[0].Subnet = "10.9.0.0/24"
	done, problems, err := deploy(c, vip)
	assert.NilError(t, err)
	assert.Equal(t, done, "ok", problems)
	await(t, func() bool {
		events, _, err := store.List[record.Event](t.Context(), c.store, c.store.Keys.Events())
		assert.NilError(t, err)
		return slices.ContainsFunc(events, func(e store.Item[record.Event]) bool {
			return strings.Contains(e.Value.Text, "no address is left for service s0")
		})
	})
	assert.Equal(t, len(services(t, c.store)), 0)
	free := layouts[0].Block(2)
	_, err = c.store.Txn().Delete(c.store.Keys.Block(n.ID, free.String())).Commit(t.Context())
	assert.NilError(t, err)
	await(t, func() bool { return len(services(t, c.store)) == 1 })
	for _, address := range services(t, c.store) {
		assert.Assert(t, free.Contains(netip.MustParseAddr(address)))
	}
}

// A deploy that changes nothing starts again what has failed.
func TestUnchangedDeployStartsWhatHasFailed(t *testing.T) {
	client := storetest.Start(t)
	c, _ := newController(t, client, "c1")
	agents := playAgents(t, client, "h1")
	c.awaitLead(t)
	_, _, err := deploy(c, application("one", 1, 2))
	assert.NilError(t, err)
	v := c.view("one")
	for _, o := range v.Observed {
		o.State, o.Error = record.StateFailed, "exited with code 137"
		_, err := c.store.Txn().Put(c.store.Keys.Observed(o.Host, o.Task), o).Commit(t.Context())
		assert.NilError(t, err)
		break
	}
	await(t, func() bool {
		for _, o := range c.view("one").Observed {
			if o.State == record.StateFailed {
				return true
			}
		}
		return false
	})
	done, problems, err := deploy(c, application("one", 1, 2))
	assert.NilError(t, err)
	assert.Equal(t, done, "ok", problems)
	agents.mu.Lock()
	defer agents.mu.Unlock()
	assert.Equal(t, agents.ran["one-s0-1"]+agents.ran["one-s0-2"], 3)
}

// A port that hosts cannot lead anywhere is refused, not published nowhere.
func TestPortsOfEveryHostNeedANetwork(t *testing.T) {
	ours, internal := record.Network{Segment: "bridged"}, record.Network{Internal: true}
	lan := record.Network{Driver: "macvlan"}
	for _, x := range []struct {
		networks []record.Network
		want     string
	}{
		{[]record.Network{lan, ours}, ""},
		{[]record.Network{internal, ours}, ""},
		{[]record.Network{internal}, "which is in internal networks only"},
		{[]record.Network{lan, internal}, "whose networks are carried by the driver macvlan"},
		{nil, "which is in no network"},
	} {
		text, remedy := unreachable(x.networks)
		assert.Equal(t, text, x.want)
		assert.Equal(t, remedy == "", text == "")
	}

	client := storetest.Start(t)
	c, _ := newController(t, client, "c1")
	playAgents(t, client, "h1")
	c.awaitLead(t)
	app := application("one", 1, 1)
	app.Networks[0].Driver = "macvlan"
	app.Entities[0].Service.Ports = []model.Port{{Protocol: "tcp", ContainerPort: 80, HostPort: 8080, Mode: model.PortIngress}}
	_, _, err := deploy(c, app)
	var refused *api.CallError
	assert.Assert(t, errors.As(err, &refused))
	assert.Equal(t, len(refused.Body.Problems), 1)
	assert.Assert(t, strings.Contains(refused.Body.Problems[0], "the driver macvlan"), refused.Body.Problems[0])
}

func TestPortsOfEveryHost(t *testing.T) {
	client := storetest.Start(t)
	c, _ := newController(t, client, "c1")
	playAgents(t, client, "h1", "h2")
	c.awaitLead(t)
	publishing := func(name string, ports ...model.Port) *model.Application {
		app := application(name, 1, 3)
		for i := range ports {
			ports[i].Protocol, ports[i].ContainerPort = "tcp", 80
		}
		app.Entities[0].Service.Ports = ports
		return app
	}
	published := func() map[string]record.Published {
		c.cache.mu.RLock()
		defer c.cache.mu.RUnlock()
		out := map[string]record.Published{}
		for k, v := range c.cache.published {
			out[k] = v
		}
		return out
	}
	// Three replicas on two hosts: each host has the port once all the same.
	done, problems, err := deploy(c, publishing("one", model.Port{HostPort: 8080, Mode: model.PortIngress}, model.Port{Mode: model.PortIngress}))
	assert.NilError(t, err)
	assert.Equal(t, done, "ok", problems)
	await(t, func() bool { return len(published()) == 2 })
	assert.Equal(t, published()["tcp_8080"].Service, "s0")
	assert.Equal(t, published()["tcp_30000"].Port, uint16(80))

	for _, p := range []model.Port{{HostPort: 8080, Mode: model.PortIngress}, {HostPort: 8080, Mode: model.PortHost}} {
		_, _, err = deploy(c, publishing("two", p))
		assert.ErrorContains(t, err, "app")
		assert.Equal(t, len(published()), 2)
	}
	// What listens on one host is named.
	_, err = c.store.Txn().Put(c.store.Keys.HostFacts("h2"), record.HostFacts{Listening: []string{"tcp/9090"}}).Commit(t.Context())
	assert.NilError(t, err)
	// Not before the controller knows: it would deploy.
	await(t, func() bool {
		return slices.ContainsFunc(c.placementHosts("two", nil), func(h placement.Host) bool {
			return h.Ports["tcp/9090"] != ""
		})
	})
	_, _, err = deploy(c, publishing("two", model.Port{HostPort: 9090, Mode: model.PortIngress}))
	var refused *api.CallError
	assert.Assert(t, errors.As(err, &refused))
	assert.Equal(t, len(refused.Body.Problems), 1)
	assert.Assert(t, strings.Contains(refused.Body.Problems[0], "9090/tcp is taken on host h2 by another program"), refused.Body.Problems[0])

	assert.NilError(t, c.Remove(t.Context(), "one", func(api.Progress) error { return nil }))
	await(t, func() bool { return len(published()) == 0 })
}
