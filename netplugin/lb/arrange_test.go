package lb

import (
	"net/netip"
	"slices"
	"testing"

	"gotest.tools/v3/assert"
	"pgregory.net/rapid"
)

func replica(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 208, byte(n >> 8), byte(n)}) }

func replicas(t *rapid.T, label string) []netip.Addr {
	var all []netip.Addr
	for _, n := range rapid.SliceOfNDistinct(rapid.IntRange(1, 30), 0, 20, rapid.ID).Draw(t, label) {
		all = append(all, replica(n))
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return all
}

// Slots hold just what is wanted, and few of them change.
func TestArrange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		had := arrange(nil, replicas(t, "had"))
		want := replicas(t, "want")
		got := arrange(had, want)
		sorted := slices.Clone(got)
		slices.SortFunc(sorted, netip.Addr.Compare)
		assert.Assert(t, slices.Equal(sorted, want), "%v is not %v", got, want)
		differ, slots := 0, 0
		for _, a := range had {
			if !slices.Contains(want, a) {
				differ++
			}
		}
		for _, a := range want {
			if !slices.Contains(had, a) {
				differ++
			}
		}
		for i := range max(len(had), len(got)) {
			if i >= len(had) || i >= len(got) || had[i] != got[i] {
				slots++
			}
		}
		assert.Assert(t, slots <= 2*differ, "%d slots change for %d replicas: %v, %v", slots, differ, had, got)
	})
}

// Networks are cleared of shorter ways when they are first translated.
func TestWidens(t *testing.T) {
	none, service, port := NewState(), NewState(), NewState()
	service.Networks["a"] = Network{}
	port.Ports[Socket{"tcp", 80}] = Port{Network: "a"}
	for _, x := range []struct {
		had, want State
		wider     bool
	}{{none, none, false}, {none, service, true}, {service, service, false}, {none, port, true}, {port, port, false}, {service, none, false}} {
		assert.Equal(t, widens(x.had, x.want), x.wider)
	}
}

// A change brings a table from any state to any other.
func TestChange(t *testing.T) {
	state := func(t *rapid.T, label string) State {
		s := NewState()
		s.Fleet = []netip.Prefix{netip.MustParsePrefix("10.208.0.0/12")}
		for _, id := range rapid.SliceOfDistinct(rapid.SampledFrom([]string{"a", "b"}), rapid.ID).Draw(t, label+" networks") {
			s.Networks[id] = Network{From: []netip.Prefix{netip.MustParsePrefix("10.208.0.0/20")}}
			for _, n := range rapid.SliceOfDistinct(rapid.IntRange(1000, 1003), rapid.ID).Draw(t, label+" services") {
				s.Services[replica(n)] = Service{Network: id, Replicas: replicas(t, label)}
			}
		}
		for _, n := range rapid.SliceOfDistinct(rapid.Uint16Range(80, 83), rapid.ID).Draw(t, label+" ports") {
			p := Port{Network: "a", Target: rapid.Uint16Range(80, 81).Draw(t, label+" target"), Replicas: replicas(t, label)}
			if rapid.Bool().Draw(t, label+" one address") {
				p.Address = netip.MustParseAddr("192.0.2.1")
			}
			s.Ports[Socket{"tcp", n}] = p
		}
		for _, a := range replicas(t, label+" local") {
			s.Local[a] = true
		}
		return s
	}
	rapid.Check(t, func(t *rapid.T) {
		had := settle(NewState(), state(t, "had"))
		want := settle(had, state(t, "want"))
		c, whole := change(had, want)
		assert.Assert(t, !whole)
		elements, chains := map[string]bool{}, had.chains()
		for _, e := range had.elements() {
			elements[identity(e)] = true
		}
		for _, e := range c.Remove {
			assert.Assert(t, elements[identity(e)], "removed, but not there: %s", e)
			delete(elements, identity(e))
		}
		for _, e := range c.Add {
			assert.Assert(t, !elements[identity(e)], "added, but there: %s", e)
			elements[identity(e)] = true
		}
		for _, e := range want.elements() {
			assert.Assert(t, elements[identity(e)], "missing: %s", e)
			delete(elements, identity(e))
		}
		assert.Equal(t, len(elements), 0)
		for _, k := range c.AddChains {
			chains[k.Name] = k.Rules
		}
		for _, k := range c.RemoveChains {
			delete(chains, k.Name)
		}
		assert.Equal(t, len(chains), len(want.chains()))
	})
}
