package preflight

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netns"
	"gotest.tools/v3/assert"
)

// A firewall is seen by what it does to packets that no rule of it names: by its
// policy, or by a last rule. It is looked at in a network of its own.
func TestFirewallsAreSeenInTheKernel(t *testing.T) {
	defer ownNetwork(t)()
	none, err := firewall()
	assert.NilError(t, err)
	assert.Equal(t, len(none), 0)

	c, err := nftables.New()
	assert.NilError(t, err)
	chain := func(table *nftables.Table, name string, hook *nftables.ChainHook, policy nftables.ChainPolicy, rules ...[]expr.Any) {
		ch := &nftables.Chain{Table: table, Name: name}
		if hook != nil {
			ch.Type, ch.Hooknum, ch.Priority, ch.Policy = nftables.ChainTypeFilter, hook, nftables.ChainPriorityFilter, &policy
		}
		c.AddChain(ch)
		for _, r := range rules {
			c.AddRule(&nftables.Rule{Table: table, Chain: ch, Exprs: r})
		}
	}
	accept := []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
	reject := []expr.Any{&expr.Counter{}, &expr.Reject{Type: 2, Code: 3}} // icmpx admin-prohibited
	established := []expr.Any{&expr.Ct{Register: 1, Key: expr.CtKeySTATE}, &expr.Verdict{Kind: expr.VerdictDrop}}
	inet := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "firewalld"})
	chain(inet, "filter_INPUT", nftables.ChainHookInput, nftables.ChainPolicyAccept, established, reject)
	chain(inet, "filter_FORWARD", nftables.ChainHookForward, nftables.ChainPolicyAccept, reject)
	chain(inet, "filter_OUTPUT", nftables.ChainHookOutput, nftables.ChainPolicyAccept, reject)
	ip := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "filter"})
	chain(ip, "ufw-user-input", nil, 0)
	chain(ip, "INPUT", nftables.ChainHookInput, nftables.ChainPolicyDrop, accept)
	chain(ip, "DOCKER-USER", nil, 0)
	chain(ip, "FORWARD", nftables.ChainHookForward, nftables.ChainPolicyDrop, accept)
	open := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "open"})
	chain(open, "input", nftables.ChainHookInput, nftables.ChainPolicyAccept, reject, established)
	assert.NilError(t, c.Flush())

	seen, err := firewall()
	assert.NilError(t, err)
	assert.DeepEqual(t, seen, []Chain{
		{Table: "inet firewalld", Name: "filter_INPUT", Hook: "input", Rules: 2, Keeper: Firewalld},
		{Table: "inet firewalld", Name: "filter_FORWARD", Hook: "forward", Rules: 1, Keeper: Firewalld},
		{Table: "ip filter", Name: "INPUT", Hook: "input", Rules: 1, Keeper: UFW},
	})
}

// ownNetwork puts the test into a network of its own, until leave.
func ownNetwork(t *testing.T) (leave func()) {
	t.Helper()
	runtime.LockOSThread()
	home, err := netns.Get()
	assert.NilError(t, err)
	ns, err := netns.New()
	assert.NilError(t, err)
	return func() {
		assert.NilError(t, netns.Set(home)) // else the thread stays locked, and ends
		runtime.UnlockOSThread()
		assert.NilError(t, errors.Join(ns.Close(), home.Close()))
	}
}

// Docker's rules are of the older iptables where that has a table of filters
// and the newer one has no chain of Docker's.
func TestTheIptablesOfDockerIsKnown(t *testing.T) {
	defer ownNetwork(t)()
	tables := func(names string) string {
		proc := t.TempDir()
		assert.NilError(t, os.Mkdir(filepath.Join(proc, "net"), 0o755))
		assert.NilError(t, os.WriteFile(filepath.Join(proc, "net", "ip_tables_names"), []byte(names), 0o600))
		return proc
	}
	is := func(want, proc string) {
		t.Helper()
		got, err := iptables(proc)
		assert.NilError(t, err)
		assert.Equal(t, got, want)
	}
	is("", t.TempDir()) // a kernel without the older one
	is("", tables("nat\nmy-filter\n"))
	is(Legacy, tables("nat\nfilter\n"))
	c, err := nftables.New()
	assert.NilError(t, err)
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "filter"})
	c.AddChain(&nftables.Chain{Table: table, Name: "DOCKER-USER"})
	assert.NilError(t, c.Flush())
	is(NFT, tables("nat\nfilter\n"))
}
