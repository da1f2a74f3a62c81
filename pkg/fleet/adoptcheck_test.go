package fleet

import (
	"testing"

	"github.com/moby/moby/api/types/system"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/fleet/preflight"
)

func TestMeansOfAMachineAreJudged(t *testing.T) {
	fine := preflight.Facts{MTU: 1500, DefaultLink: "eth0", DiskFree: 10 << 30}
	for name, tc := range map[string]struct {
		change   func(f *preflight.Facts)
		memory   int64
		ours     bool
		problems []string
		warnings int
	}{
		"fine":                 {change: func(*preflight.Facts) {}},
		"ports":                {change: func(f *preflight.Facts) { f.Listening = []string{"udp/7483", "udp/7484", "tcp/7483"} }, problems: []string{"7483", "7484"}},
		"our own ports":        {change: func(f *preflight.Facts) { f.Listening = []string{"udp/7483"}; f.Everywhere = []string{"udp/53"} }, ours: true},
		"DNS on every address": {change: func(f *preflight.Facts) { f.Everywhere = []string{"tcp/53", "udp/53"} }, problems: []string{"DNS"}},
		"DNS on its own":       {change: func(f *preflight.Facts) { f.Listening = []string{"udp/53"} }},
		"a firewall": {change: func(f *preflight.Facts) {
			f.Firewall = []preflight.Chain{{Hook: "input", Rules: 3}, {Hook: "forward", Rules: 1}}
		}, warnings: 2},
		"ufw's": {change: func(f *preflight.Facts) {
			f.Firewall = []preflight.Chain{{Hook: "input", Rules: 3, Keeper: preflight.UFW}}
		}, warnings: 1},
		"the older iptables":    {change: func(f *preflight.Facts) { f.IPTables = preflight.Legacy }, warnings: 1},
		"the newer iptables":    {change: func(f *preflight.Facts) { f.IPTables = preflight.NFT }},
		"a firewall for good":   {change: func(f *preflight.Facts) { f.Firewall = []preflight.Chain{{Hook: "input"}, {Hook: "forward"}} }, problems: []string{"to the machine", "containers send or get"}},
		"a narrow link":         {change: func(f *preflight.Facts) { f.MTU = 1400 }, warnings: 1},
		"too narrow a link":     {change: func(f *preflight.Facts) { f.MTU = 1279 }, problems: []string{"1280"}},
		"little disk":           {change: func(f *preflight.Facts) { f.DiskFree = 1 << 30 }, warnings: 1},
		"no disk":               {change: func(f *preflight.Facts) { f.DiskFree = 1 << 20 }, problems: []string{"1MiB free"}},
		"disk not known":        {change: func(f *preflight.Facts) { f.DiskFree = 0 }},
		"no memory":             {change: func(*preflight.Facts) {}, memory: 64 << 20, problems: []string{"64MiB of memory"}},
		"what cannot be looked": {change: func(f *preflight.Facts) { f.Unknown = []string{"routes: no"} }, warnings: 1},
	} {
		t.Run(name, func(t *testing.T) {
			f := fine
			tc.change(&f)
			if tc.memory == 0 {
				tc.memory = 8 << 30
			}
			c := checkMeans(f, tc.memory, tc.ours)
			matches(t, c.problems(), tc.problems)
			n := 0
			for _, k := range c {
				if k.Result == Warning {
					n++
				}
			}
			assert.Equal(t, n, tc.warnings, "%+v", c)
		})
	}
}

func TestOneMachineUnderTwoNamesIsNoticed(t *testing.T) {
	a := func(endpoint, name, id, address string) *adoption {
		return &adoption{o: AddOptions{Endpoint: endpoint, Name: name}, machine: &machine{info: system.Info{ID: id}}, address: address}
	}
	got := across([]*adoption{
		a("ssh://a", "x", "1", "10.0.0.1"), a("tcp://a", "y", "1", "10.0.0.1"),
		a("ssh://b", "x", "2", "10.0.0.2"), a("ssh://c", "z", "3", "10.0.0.2"), {},
	})
	assert.Equal(t, len(got[0])+len(got[4]), 0)
	matches(t, got[1], []string{"same machine as ssh://a"})
	matches(t, got[2], []string{"ssh://a would be called x as well"})
	matches(t, got[3], []string{"ssh://b has the address 10.0.0.2"})
}

func TestVersionsAreComparedByNumbers(t *testing.T) {
	for _, tc := range []struct {
		a, b  string
		newer bool
	}{
		{"1.2.3", "1.2.3", false}, {"1.10.0", "1.9.9", true}, {"1.2", "1.2.1", false}, {"2.0.0", "1.9", true},
		{"1.0.0", "1.0.0-rc1", true}, {"1.0.0-rc1", "1.0.0", false}, {"1.0.0-b", "1.0.0-a", false}, {"main", "1.0.0", false}, {"1.0.0", "", false},
	} {
		assert.Equal(t, newer(tc.a, tc.b), tc.newer, "%s against %s", tc.a, tc.b)
	}
}
