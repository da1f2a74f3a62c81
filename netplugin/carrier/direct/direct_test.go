package direct

import (
	"net/netip"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/netplugin/carrier"
	"clocker.io/clocker/netplugin/nettest"
)

func TestHop(t *testing.T) {
	w := nettest.NewWorld(t, nil)
	for _, c := range []struct {
		name                 string
		by6                  bool
		near, far, ownPrefix string
	}{
		{"IPv4", false, "10.77.0.50", "10.78.0.50", "10.77.0.0/24"}, {"IPv6", true, "2001:db8:77::50", "2001:db8:78::50", "2001:db8:77::/64"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := w.FirstLink(1500).AddBareHost(c.by6)
			way := New(h.Handle, netip.MustParseAddr(h.Address))
			near := carrier.Peer{Host: "near", Address: netip.MustParseAddr(c.near), LinkLocal: netip.MustParseAddr("fe80::50")}
			hop, err := way.Hop(near)
			assert.NilError(t, err)
			assert.Equal(t, hop.Gateway, near.Address)
			assert.Equal(t, hop.Gateway6, near.LinkLocal)
			assert.Equal(t, hop.MTU, 0)

			// The peer must say the same, if it says anything.
			near.Links = []netip.Prefix{netip.MustParsePrefix(c.ownPrefix)}
			assert.Check(t, way.Reaches(near))
			near.Links = []netip.Prefix{netip.PrefixFrom(near.Address, near.Address.BitLen())}
			_, err = way.Hop(near)
			assert.ErrorIs(t, err, carrier.ErrUnreachable)
			near.Links = nil

			near.MTU = 1400
			hop, err = way.Hop(near)
			assert.NilError(t, err)
			assert.Equal(t, hop.MTU, 1400)
			near.MTU = 9000
			hop, err = way.Hop(near)
			assert.NilError(t, err)
			assert.Equal(t, hop.MTU, 0)

			far := carrier.Peer{Host: "far", Address: netip.MustParseAddr(c.far)}
			_, err = way.Hop(far)
			assert.ErrorIs(t, err, carrier.ErrUnreachable)
			assert.NilError(t, way.Sync([]carrier.Peer{near, far}))
			found, err := way.Check(true)
			assert.NilError(t, err)
			assert.Equal(t, len(found), 1)
			assert.Check(t, strings.Contains(found[0].Subject, "far") && found[0].Hint != "" && !found[0].Fixed)

			mtu, err := way.Underlay()
			assert.NilError(t, err)
			assert.Equal(t, mtu, 1500)
			h.Run("ip", "addr", "flush", "dev", "eth0")
			assert.ErrorContains(t, way.Sync(nil), "no interface has the host's address "+h.Address)
			_, err = way.Hop(near)
			assert.ErrorContains(t, err, "no interface has")
		})
	}
}
