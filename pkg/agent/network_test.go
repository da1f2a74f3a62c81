package agent

import (
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/engine"
	"clocker.io/clocker/pkg/record"
)

func (m *memEngine) networkNames() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for _, n := range m.networks {
		out = append(out, n.Name)
	}
	return out
}

func (r *rig) hasNetworks(names ...string) {
	r.t.Helper()
	r.until("networks "+join(names), func() bool { return join(r.engine.networkNames()) == join(names) })
}

func join(names []string) string {
	s := slices.Clone(names)
	slices.Sort(s)
	return strings.Join(s, ",")
}

func TestNetworkStaysWhileAnyoneUsesIt(t *testing.T) {
	r := newRig(t)
	r.network("n1", "shop")
	r.start()
	a := web("t1", record.PhaseRun)
	a.Container.Networks = []record.NetworkJoin{{ID: "n1"}}
	r.assign(a)
	r.state("t1", record.StateRunning)
	// A user's own container on the application's network.
	id, err := r.engine.Create(t.Context(), engine.ContainerRequest{
		Spec: record.ContainerSpec{Name: "mine", Image: "web:1"}, Networks: []string{"shop_default"}})
	assert.NilError(t, err)
	r.unassign("t1")
	r.gone(r.store.Keys.Observed("h1", "t1"))
	r.until("asked", func() bool { return r.engine.count("network users") > 0 })
	r.hasNetworks("shop_default")
	assert.NilError(t, r.engine.Remove(t.Context(), id))
	r.hasNetworks()
}

func TestHandMadeNetworkIsMirrored(t *testing.T) {
	r := newRig(t)
	// Made on another host; its name is not known yet.
	n := record.Network{ID: "n2", Subnet: "10.208.16.0/20", Gateway: "10.208.16.1"}
	r.put(r.store.Keys.Network("n2"), n)
	r.start()
	r.until("looked", func() bool { return r.engine.count("networks") > 0 })
	n.Name = "lab"
	r.put(r.store.Keys.Network("n2"), n)
	r.hasNetworks("lab")
	// Removed from the fleet: removed here.
	_, err := r.store.Txn().Delete(r.store.Keys.Network("n2")).Commit(t.Context())
	assert.NilError(t, err)
	r.hasNetworks()
}

func TestNameOfHandMadeNetworkIsTold(t *testing.T) {
	r := newRig(t)
	r.start()
	// The plugin writes the network, the engine knows its name.
	r.put(r.store.Keys.Network("n3"), record.Network{ID: "n3", Subnet: "10.208.32.0/20", Gateway: "10.208.32.1",
		BlockBits: 26, Segment: "routed", Carrier: "direct", MTU: 1500, Egress: "engine"})
	_, err := r.engine.addNetwork(engine.Network{Name: "bench", Driver: "clocker:latest", Subnets: []string{"10.208.32.0/20"}})
	assert.NilError(t, err)
	await(r, r.store.Keys.Network("n3"), "named", func(n record.Network, ok bool) bool { return n.Name == "bench" })
	r.hasNetworks("bench")
	// Removed on another host: removed here, where it was made, too.
	_, err = r.store.Txn().Delete(r.store.Keys.Network("n3")).Commit(t.Context())
	assert.NilError(t, err)
	r.hasNetworks()
}

func TestHandRemovedNetworkGoesEverywhereUnlessUsed(t *testing.T) {
	r := newRig(t)
	n := record.Network{ID: "n2", Name: "lab", Subnet: "10.208.16.0/20", Gateway: "10.208.16.1"}
	r.put(r.store.Keys.Network("n2"), n)
	r.put(r.store.Keys.Endpoint("n2", "10.208.16.9"), record.Endpoint{Host: "h2"})
	r.start()
	r.hasNetworks("lab")
	remove := func() {
		d, err := r.engine.Network(t.Context(), "lab")
		assert.NilError(t, err)
		assert.NilError(t, r.engine.RemoveNetwork(t.Context(), d.ID))
	}
	remove()
	r.until("made again", func() bool { return r.engine.count("network create") == 2 })
	r.hasNetworks("lab")
	_, err := r.store.Txn().DeletePrefix(r.store.Keys.Endpoint("n2", "")).Commit(t.Context())
	assert.NilError(t, err)
	remove()
	r.gone(r.store.Keys.Network("n2"))
	r.hasNetworks()
}

func TestNetworkWithATakenNameFailsForGood(t *testing.T) {
	r := newRig(t)
	r.network("n1", "shop")
	_, err := r.engine.addNetwork(engine.Network{Name: "shop_default", Driver: "bridge"})
	assert.NilError(t, err)
	r.start()
	a := web("t1", record.PhaseRun)
	a.Container.Networks = []record.NetworkJoin{{ID: "n1"}}
	r.assign(a)
	o := r.state("t1", record.StateFailed)
	assert.Assert(t, o.Fatal, "%+v", o)
	assert.Assert(t, strings.Contains(o.Error, errNetworkTaken.Error()), o.Error)
}

func TestSettle(t *testing.T) {
	app := record.Network{ID: "a", Name: "shop_default", App: "shop", Subnet: "10.1.0.0/20"}
	hand := record.Network{ID: "h", Name: "lab", Subnet: "10.2.0.0/20"}
	nameless := record.Network{ID: "u", Subnet: "10.3.0.0/20"}
	six := record.Network{ID: "u", Subnet6: "fd00:3::/64"}
	made := func(r record.Network) engine.Network {
		return engine.Network{ID: "d-" + r.ID, Name: r.Name, Driver: engine.Driver, FleetID: r.ID,
			Labels: map[string]string{engine.LabelNetwork: r.ID}}
	}
	byHand := func(r record.Network, name string) engine.Network {
		return engine.Network{ID: "d-" + r.ID, Name: name, Driver: engine.Driver, Subnets: subnets(r)}
	}
	records := func(rs ...record.Network) map[string]record.Network {
		m := map[string]record.Network{}
		for _, r := range rs {
			m[r.ID] = r
		}
		return m
	}
	yes := map[string]bool{"a": true, "h": true, "u": true}
	for _, c := range []struct {
		name string
		view netView
		want []netVerb
	}{
		{"nothing", netView{}, nil},
		{"an application's network waits for a container", netView{Records: records(app), Wanted: yes, Complete: true}, nil},
		{"it stays while wanted", netView{Records: records(app), Docker: []engine.Network{made(app)}, Wanted: yes, Complete: true}, nil},
		{"it goes when not", netView{Records: records(app), Docker: []engine.Network{made(app)}, Complete: true}, []netVerb{netRemove}},
		{"but not while that is not certain", netView{Records: records(app), Docker: []engine.Network{made(app)}}, nil},
		{"a hand-made one is mirrored", netView{Records: records(hand)}, []netVerb{netMake}},
		{"not before it has a name", netView{Records: records(nameless)}, nil},
		{"it is named where it was made", netView{Records: records(nameless), Docker: []engine.Network{byHand(nameless, "x")}}, []netVerb{netName}},
		{"also if it has no IPv4", netView{Records: records(six), Docker: []engine.Network{byHand(six, "x")}}, []netVerb{netName}},
		{"and then left alone", netView{Records: records(hand), Docker: []engine.Network{byHand(hand, "lab")}, Complete: true}, nil},
		{"it goes with the fleet's", netView{Removed: yes, Docker: []engine.Network{{ID: "d", Name: "lab", Driver: engine.Driver, FleetID: "h"}}}, []netVerb{netRemove}},
		{"one that etcd never had stays", netView{Docker: []engine.Network{byHand(hand, "lab")}, Complete: true}, nil},
		{"a mirror goes even if its end was missed", netView{Docker: []engine.Network{made(hand)}, Complete: true}, []netVerb{netRemove}},
		{"removed by hand", netView{Records: records(hand), ByHand: yes}, []netVerb{netGone}},
		{"an application's removed by hand waits for a container", netView{Records: records(app), ByHand: yes, Wanted: yes, Complete: true}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []netVerb
			for _, a := range settle(c.view) {
				assert.Assert(t, a.Reason != "")
				got = append(got, a.Verb)
			}
			assert.DeepEqual(t, got, c.want)
		})
	}
}
