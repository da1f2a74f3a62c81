package driver

import (
	"net/netip"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/record"
)

// A transaction that got no answer, as from an etcd that was paused, may be
// carried out after others that came later: what is in etcd then must become
// again what the host has.
func TestLateWritesAreSetRight(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/24")
	h := f.host("a")
	pool := h.join(n)
	text, err := h.request1(pool, "", "web")
	assert.NilError(t, err)
	held := netip.MustParsePrefix(text).Addr()
	other, err := h.request1(pool, "", "db")
	assert.NilError(t, err)
	free := netip.MustParsePrefix(other).Addr()
	h.put(pool, free.String())
	want := map[string]record.Endpoint{held.String(): {Host: "a", Container: "web"}}
	f.waitEndpoints(n, want)

	k := f.st.Keys
	_, err = f.st.Txn().Put(k.Endpoint(n.ID, free.String()), record.Endpoint{Host: "a", Container: "db"}).
		Delete(k.Endpoint(n.ID, held.String())).Commit(t.Context())
	assert.NilError(t, err)
	h.mu.Lock()
	h.unanswered = true // as after a transaction that got no answer
	h.mu.Unlock()
	f.waitEndpoints(n, want)
}
