package links

import (
	"slices"
	"testing"

	"gotest.tools/v3/assert"
	"pgregory.net/rapid"

	"clocker.io/clocker/pkg/record"
)

func on(address string, prefixes ...string) record.Underlay {
	return record.Underlay{Address: address, Links: prefixes}
}

func TestSame(t *testing.T) {
	for _, c := range []struct {
		name string
		a, b record.Underlay
		want bool
	}{
		{"one link", on("10.0.0.1", "10.0.0.0/24"), on("10.0.0.2", "10.0.0.0/24"), true},
		{"two links", on("10.0.0.1", "10.0.0.0/24"), on("10.0.1.2", "10.0.1.0/24"), false},
		{"only one sees the other", on("10.0.0.1", "10.0.0.0/16"), on("10.0.1.2", "10.0.1.0/24"), false},
		{"a cloud's single addresses", on("10.0.0.1", "10.0.0.1/32"), on("10.0.0.2", "10.0.0.2/32"), false},
		{"by a second prefix", on("10.0.0.1", "10.0.0.0/24", "10.0.1.0/24"), on("10.0.1.2", "10.0.1.0/24", "10.0.0.0/24"), true},
		{"IPv6", on("2001:db8::1", "2001:db8::/64"), on("2001:db8::2", "2001:db8::/64"), true},
		{"two families", on("10.0.0.1", "10.0.0.0/24"), on("2001:db8::2", "2001:db8::/64"), false},
		{"nothing known", on("10.0.0.1", "10.0.0.0/24"), on("10.0.0.2"), false},
		{"unreadable", on("10.0.0.1", "10.0.0.0/24", "x"), on("y", "10.0.0.0/24"), false},
	} {
		assert.Equal(t, Same(c.a, c.b), c.want, c.name)
	}
}

func TestOverhead(t *testing.T) {
	one := []record.Underlay{on("10.0.0.1", "10.0.0.0/24"), on("10.0.0.2", "10.0.0.0/24"), on("10.0.0.3", "10.0.0.0/24")}
	two := append(slices.Clone(one[:2]), on("10.0.1.3", "10.0.1.0/24"))
	six := []record.Underlay{on("2001:db8::1", "2001:db8::/64"), on("2001:db8:1::1", "2001:db8:1::/64")}
	for _, c := range []struct {
		carrier string
		hosts   []record.Underlay
		want    int
	}{
		{"direct", two, 0}, {"vxlan", one, 50}, {"wireguard", one, 60}, {"vxlan", six, 70}, {"wireguard", six, 80},
		{"auto", nil, 0}, {"auto", one, 0}, {"auto", two, 50}, {"auto", six, 70}, {"", two, 50}, {"auto", six[:1], 0},
		{"auto", []record.Underlay{on("10.0.0.1"), on("10.0.0.2")}, 50},
	} {
		assert.Equal(t, Overhead(c.carrier, c.hosts), c.want, "%s over %v", c.carrier, c.hosts)
	}
}

func TestMTU(t *testing.T) {
	near, far := on("10.0.0.1", "10.0.0.0/24"), on("10.0.1.1", "10.0.1.0/24")
	near.MTU, far.MTU = 1500, 1400
	six := on("2001:db8::1", "2001:db8::/64")
	six.MTU = 1500
	for _, c := range []struct {
		carrier string
		hosts   []record.Underlay
		want    int
	}{
		{"auto", nil, 1500}, {"wireguard", nil, 1440}, {"direct", []record.Underlay{near, far}, 1400},
		{"auto", []record.Underlay{near}, 1500}, {"auto", []record.Underlay{near, far}, 1350}, {"vxlan", []record.Underlay{near}, 1450},
		{"wireguard", []record.Underlay{near}, 1440}, {"wireguard", []record.Underlay{near, far}, 1328}, {"wireguard", []record.Underlay{six}, 1408},
		{"vxlan", []record.Underlay{on("10.0.0.1"), far}, 1350},
	} {
		assert.Equal(t, MTU(c.carrier, c.hosts), c.want, "%s over %v", c.carrier, c.hosts)
	}
}

// Two hosts agree on whether they are on one link, and a host more never makes
// packets larger.
func TestSameIsMutual(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		host := rapid.Custom(func(t *rapid.T) record.Underlay {
			return on(rapid.SampledFrom([]string{"10.0.0.1", "10.0.0.2", "10.0.1.1", "10.1.0.1", "2001:db8::1"}).Draw(t, "address"),
				rapid.SliceOf(rapid.SampledFrom([]string{"10.0.0.0/24", "10.0.0.0/16", "10.0.1.0/24", "10.0.0.0/8", "2001:db8::/64", "10.0.0.1/32"})).Draw(t, "prefixes")...)
		})
		a, b := host.Draw(t, "a"), host.Draw(t, "b")
		if Same(a, b) != Same(b, a) {
			t.Fatal("not mutual")
		}
		all := rapid.SliceOf(host).Draw(t, "hosts")
		if Overhead("auto", append(all, a)) < Overhead("auto", all) {
			t.Fatal("less with one host more")
		}
	})
}
