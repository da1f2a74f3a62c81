package headroom

import (
	"fmt"
	"time"

	"clocker.io/clocker/pkg/record"
)

// Check finds everything that is wrong with a policy.
func Check(p record.HeadroomPolicy) (ps []string) {
	bad := func(format string, a ...any) { ps = append(ps, fmt.Sprintf(format, a...)) }
	if p.Count != 0 && p.Percent != 0 {
		bad("a count and a percentage cannot both be kept free: give one of them")
	}
	for _, f := range []struct {
		name string
		n    int64
	}{{"count", int64(p.Count)}, {"number of CPUs", p.CPU}, {"memory", p.Memory}, {"least number of hosts", int64(p.MinHosts)}, {"largest number of hosts", int64(p.MaxHosts)}} {
		if f.n < 0 {
			bad("the %s is negative", f.name)
		}
	}
	if p.Percent < 0 || p.Percent >= 1 {
		bad("the percentage must lie between 0 and 100, both excluded")
	}
	if p.MaxHosts > 0 && p.MinHosts > p.MaxHosts {
		bad("at least %d hosts and at most %d cannot be", p.MinHosts, p.MaxHosts)
	}
	seen := map[string]bool{}
	for _, f := range p.For {
		key := ForKey(f.App, f.Service)
		if f.N < 1 {
			bad("room for %s: %d replicas cannot be kept room for", key, f.N)
		}
		if seen[key] {
			bad("room for %s is asked for twice", key)
		}
		seen[key] = true
	}
	return ps
}

// Delays are the stabilisation windows of a policy: the defaults where it
// names none, and no wait where one is negative.
func Delays(p record.HeadroomPolicy) (up, down time.Duration) {
	up, down = delays(p)
	return max(0, up), max(0, down)
}
