package controller

import (
	"strings"
	"testing"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
	"clocker.io/clocker/pkg/store/storetest"

	"gotest.tools/v3/assert"
)

func TestHostsAreToldOfControllersAndAuthority(t *testing.T) {
	client := storetest.Start(t)
	c, _ := newController(t, client, "c1")
	c.awaitLead(t)
	playAgents(t, client, "h1")
	told := func() record.Membership {
		it, err := store.Get[record.Membership](t.Context(), c.store, c.store.Keys.HostMembership("h1"))
		if err != nil {
			return record.Membership{}
		}
		return it.Value
	}
	await(t, func() bool { return len(told().Controllers) == 1 })
	assert.Equal(t, told().CA, string(c.authority.Bundle()))
	_, err := c.store.Txn().Put(c.store.Keys.Controller("c2"), record.ControllerMember{Name: "c2", URL: "https://c2"}).Commit(t.Context())
	assert.NilError(t, err)
	await(t, func() bool { return strings.Join(told().Controllers, " ") == "https://c1 https://c2" })
	// What nobody may have written is put right.
	_, err = c.store.Txn().Put(c.store.Keys.HostMembership("h1"), record.Membership{CA: "forged"}).Commit(t.Context())
	assert.NilError(t, err)
	await(t, func() bool { return told().CA != "forged" })
	// A host that is gone is told nothing.
	_, err = c.store.Txn().DeletePrefix(c.store.Keys.Hosts() + "h1/").Commit(t.Context())
	assert.NilError(t, err)
	await(t, func() bool { c.cache.mu.RLock(); defer c.cache.mu.RUnlock(); return len(c.cache.hosts) == 0 })
	assert.NilError(t, c.tellHosts(t.Context()))
	assert.Equal(t, told().CA, "")
}

func TestServicesOfRemovedNetworksAreSwept(t *testing.T) {
	c, _ := newController(t, storetest.Start(t), "c1")
	c.awaitLead(t)
	k := c.store.Keys
	revision, err := c.store.Txn().Put(k.Network("there"), record.Network{ID: "there"}).
		Put(k.Service("there", "10.0.0.1"), record.Service{}).Put(k.Service("gone", "10.0.1.1"), record.Service{}).Commit(t.Context())
	assert.NilError(t, err)
	assert.NilError(t, c.cache.wait(t.Context(), revision))
	assert.NilError(t, c.sweepServices(t.Context()))
	left, _, err := store.List[record.Service](t.Context(), c.store, k.Services())
	assert.NilError(t, err)
	for _, it := range left {
		assert.Assert(t, !strings.Contains(it.Key, "/gone/"))
	}
}
