package controller

import (
	"context"
	"errors"
	"testing"
	"time"

	"clocker.io/clocker/pkg/location"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
	"clocker.io/clocker/pkg/store/storetest"

	"gotest.tools/v3/assert"
)

// die plays a host whose machine is gone.
func (y *yard) die(id string) {
	k := y.s.Keys
	_, err := y.s.Txn().Delete(k.HostLease(id)).Put(k.HostHealth(id), record.HostHealth{State: record.HealthLost, Since: time.Now()}).Commit(y.t.Context())
	assert.NilError(y.t, err)
}

// A host of a provider that stays lost is given back, and another takes its
// place; so is one that a user lets go.
func TestALostHostIsGivenBack(t *testing.T) {
	client := storetest.Start(t)
	y := newYard(t, store.New(client, "f"))
	k := y.s.Keys
	y.stand("h1", nil)
	y.put(k.Provider("cloud"), record.Provider{Name: "cloud", Kind: "cloud"})
	y.put(k.HeadroomPolicy(), record.HeadroomPolicy{MinHosts: 2, MaxHosts: 2, UpDelay: -1, LostDelay: time.Millisecond})
	_, _ = scaleController(t, client, "f", y)
	await(t, func() bool { return y.in(record.MachineHost, 1) })
	gone := y.machines()[0]
	y.die(gone.Host)
	await(t, func() bool {
		ms := y.machines()
		return y.in(record.MachineHost, 1) && ms[0].ID != gone.ID && len(y.hosts()) == 2
	})
	alive := y.cloud.Alive()
	assert.Equal(t, len(alive), 1, "%v", alive)
}

// A machine that does not answer is no reason to keep its host in the fleet.
func TestAMachineThatCannotBeReachedIsForgotten(t *testing.T) {
	client := storetest.Start(t)
	y := newYard(t, store.New(client, "f"))
	y.stand("h1", nil)
	y.stand("h2", nil)
	c, _ := scaleController(t, client, "f", y)
	await(t, func() bool { return c.findHost("h2") != "" })
	y.die("h2")
	await(t, func() bool { return !c.answers("h2") })
	a := adoption{host: "h2", machine: record.Machine{ID: "m", Host: "h2", Endpoint: "ssh://root@127.0.0.1:1"}}
	f := &fleetAdopter{c: c}
	err := f.Clear(t.Context(), a)
	assert.Assert(t, err != nil && !errors.Is(err, location.ErrUncleaned), "%v", err)
	assert.Assert(t, c.findHost("h2") != "", "it is not lost for good")
	a.machine.Lost = true
	assert.ErrorIs(t, f.Clear(t.Context(), a), location.ErrUncleaned)
	assert.Equal(t, c.findHost("h2"), "")
	now := time.Now()
	releasing := a.machine
	releasing.State = record.MachineReleasing
	kept, _ := location.After(releasing, location.Clear, location.Result{Err: location.ErrUncleaned}, now, true)
	assert.Equal(t, kept.State, record.MachineFailed, "a machine of a list is set aside, to be cleaned")
	made, _ := location.After(releasing, location.Clear, location.Result{Err: location.ErrUncleaned}, now, false)
	assert.Equal(t, location.Next(made, location.Sight{Now: now.Add(time.Hour)}).Do, location.Forget)
	made.Handle = "i-1"
	assert.Equal(t, location.Next(made, location.Sight{Now: now.Add(time.Hour)}).Do, location.Release)
}

// A host that comes back as it is given up stays.
func TestAHostThatComesBackIsNotGivenUp(t *testing.T) {
	client := storetest.Start(t)
	y := newYard(t, store.New(client, "f"))
	k := y.s.Keys
	y.stand("h1", nil)
	y.put(k.Machine("m"), record.Machine{ID: "m", Provider: "none", Host: "h1", State: record.MachineHost})
	c, _ := scaleController(t, client, "f", y)
	await(t, func() bool {
		c.cache.mu.RLock()
		defer c.cache.mu.RUnlock()
		return len(c.cache.machines) == 1 && len(c.cache.hosts) == 1
	})
	c.cache.mu.RLock()
	it := c.cache.machines["m"]
	c.cache.mu.RUnlock()
	s := &scaler{c: c}
	m := it.Value
	m.State, m.Lost = record.MachineReleasing, true
	s.giveUp(context.Background(), it, m, "h1")
	got := y.machines()[0]
	assert.Equal(t, got.State, record.MachineHost)
	assert.Equal(t, y.hosts()["h1"].State, record.HostActive)
}
