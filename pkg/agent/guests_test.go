package agent

import (
	"slices"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/engine"
	"clocker.io/clocker/pkg/record"
)

// guest starts a container that no application has.
func (r *rig) guest(name, image string, networks ...string) (id string) {
	r.t.Helper()
	id, err := r.engine.Create(r.t.Context(), engine.ContainerRequest{Spec: record.ContainerSpec{Name: name, Image: image}, Networks: networks})
	assert.NilError(r.t, err)
	assert.NilError(r.t, r.engine.Start(r.t.Context(), id))
	return id
}

// guestNamed waits until a guest's names in etcd are as wanted.
func (r *rig) guestNamed(id, what string, ok func(n record.NameRecord) bool) record.NameRecord {
	r.t.Helper()
	return await(r, r.store.Keys.Name("h1", guestKey+shortID(id)), what, func(n record.NameRecord, exists bool) bool { return exists && ok(n) })
}

func anyName(record.NameRecord) bool { return true }

func (r *rig) handMade(id, name string) {
	r.put(r.store.Keys.Network(id), record.Network{ID: id, Name: name, Subnet: "10.208.0.0/20", Gateway: "10.208.0.1", ByHand: true})
	r.until("network "+name, func() bool { return slices.Contains(r.engine.networkNames(), name) })
}

func TestGuestsHaveNames(t *testing.T) {
	r := newRig(t)
	r.engine.health["sick:1"], r.engine.images["sick:1"] = "starting", true
	r.start()
	r.handMade("n1", "lab")
	_, err := r.engine.addNetwork(engine.Network{Name: "bridge0", Driver: "bridge"})
	assert.NilError(t, err)
	id := r.guest("mine", "web:1", "lab", "bridge0")
	n := r.guestNamed(id, "named", anyName)
	assert.Equal(t, n.Replica+n.App+n.Service, "mine")
	assert.Equal(t, len(n.Networks), 1, "%+v", n)
	assert.DeepEqual(t, n.Networks["n1"].Aliases, []string{id})

	// A container elsewhere has none, nor one whose health is not known yet.
	other := r.guest("other", "web:1", "bridge0")
	sick := r.guest("sick", "sick:1", "lab")

	// It joins another network and leaves it.
	r.handMade("n2", "field")
	r.engine.connect(id, "field")
	n = r.guestNamed(id, "on both", func(n record.NameRecord) bool { return len(n.Networks) == 2 })
	assert.DeepEqual(t, n.Networks["n2"], record.NamedAddress{Address: "10.208.9.9", Aliases: []string{id, "extra"}})
	r.engine.disconnect(id, "field")
	r.guestNamed(id, "on one", func(n record.NameRecord) bool { return len(n.Networks) == 1 })
	r.gone(r.store.Keys.Name("h1", guestKey+other))
	r.gone(r.store.Keys.Name("h1", guestKey+sick))

	// It dies, and the agent that comes after one killed knows who is left.
	left := r.guest("left", "web:1", "lab")
	r.guestNamed(left, "named", anyName)
	assert.NilError(t, r.engine.Stop(t.Context(), id))
	r.gone(r.store.Keys.Name("h1", guestKey+id))
	r.stop()
	gone := r.guest("late", "web:1", "lab")
	r.start()
	r.guestNamed(gone, "named", anyName)
	r.guestNamed(left, "named", anyName)
}

// A task's container that somebody puts on another network has a name there.
func TestTasksHaveNamesOnNetworksJoinedByHand(t *testing.T) {
	r := newRig(t)
	r.network("n1", "shop")
	r.start()
	a := web("t1", record.PhaseRun)
	a.Container.Networks = []record.NetworkJoin{{ID: "n1", Aliases: []string{"www"}}}
	r.assign(a)
	o := r.state("t1", record.StateRunning)
	r.handMade("n2", "lab")
	r.engine.connect(o.Container, "lab")
	n := await(r, r.store.Keys.Name("h1", "t1"), "on both", func(n record.NameRecord, _ bool) bool { return len(n.Networks) == 2 })
	assert.DeepEqual(t, n.Networks["n1"].Aliases, []string{"www"})
	assert.DeepEqual(t, n.Networks["n2"], record.NamedAddress{Address: "10.208.9.9", Aliases: []string{"extra"}})
}
