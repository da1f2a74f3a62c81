package agent

import (
	"os"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/dns"
	"clocker.io/clocker/pkg/record"
)

func TestNamesOutliveTheAgent(t *testing.T) {
	dir := t.TempDir()
	open := func(fleet string) *nameCache {
		c := &nameCache{identity: identity{Fleet: fleet, Host: "h1"}, dir: dir, index: dns.NewIndex(testLog(t)), log: testLog(t)}
		c.restore()
		return c
	}
	ready := func(c *nameCache) bool {
		select {
		case <-c.index.Ready():
			return true
		default:
			return false
		}
	}
	c := open("f")
	assert.Assert(t, !ready(c), "nothing is known yet")
	want := dns.Records{
		Names:    map[string]record.NameRecord{"k": {Replica: "mine", Networks: map[string]record.NamedAddress{"n1": {Address: "10.208.0.2"}}}},
		Networks: map[string]record.Network{"n1": {ID: "n1", Subnet: "10.208.0.0/20"}},
		Services: map[string]record.Service{"n1/10.208.0.9": {App: "shop", Service: "web", Address: "10.208.0.9"}},
	}
	assert.NilError(t, c.save(want))
	c = open("f")
	assert.Assert(t, ready(c))
	got, _ := c.index.Records()
	assert.DeepEqual(t, got, want)
	assert.Assert(t, !ready(open("other")), "names of another fleet")
	assert.NilError(t, os.WriteFile(c.file(), []byte("torn"), 0o600))
	assert.Assert(t, !ready(open("f")))
}
