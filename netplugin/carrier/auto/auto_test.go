package auto

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/netplugin/carrier"
	"clocker.io/clocker/netplugin/carrier/direct"
	"clocker.io/clocker/netplugin/nettest"
	"clocker.io/clocker/pkg/finding"
)

// tunnel is a tunnel that remembers what it was told.
type tunnel struct {
	peers  []string
	broken error
}

func (*tunnel) Name() string           { return "tunnel" }
func (*tunnel) Overhead() int          { return 50 }
func (*tunnel) Underlay() (int, error) { return 1500, nil }
func (t *tunnel) Sync(peers []carrier.Peer) error {
	t.peers = nil
	for _, p := range peers {
		t.peers = append(t.peers, p.Host)
	}
	return t.broken
}
func (*tunnel) Hop(carrier.Peer) (carrier.Hop, error) { return carrier.Hop{Link: 99}, nil }
func (*tunnel) Check(bool) ([]finding.Finding, error) {
	return []finding.Finding{{Subject: "tunnel"}}, nil
}
func peer(host, address string, links ...string) carrier.Peer {
	p := carrier.Peer{Host: host, Address: netip.MustParseAddr(address), LinkLocal: netip.MustParseAddr("fe80::1")}
	for _, l := range links {
		p.Links = append(p.Links, netip.MustParsePrefix(l))
	}
	return p
}

func TestChooses(t *testing.T) {
	h := nettest.NewWorld(t, nil).AddBareHost()
	far := &tunnel{}
	c := New(direct.New(h.Handle, netip.MustParseAddr(h.Address)), far)
	peers := []carrier.Peer{
		peer("near", "10.77.0.50", "10.77.0.0/24"), peer("silent", "10.77.0.51"),
		peer("away", "10.78.0.50", "10.78.0.0/24"), peer("elsewhere", "10.77.0.52", "10.77.0.52/32"),
	}
	assert.NilError(t, c.Sync(peers))
	assert.Equal(t, fmt.Sprint(far.peers), "[away elsewhere]")
	for i, want := range []bool{false, false, true, true} {
		hop, err := c.Hop(peers[i])
		assert.NilError(t, err)
		assert.Equal(t, hop.Link == 99, want, peers[i].Host)
	}
	found, err := c.Check(false)
	assert.NilError(t, err)
	assert.Equal(t, len(found), 1)

	// It changes over when a host moves.
	peers[0], peers[2] = peer("near", "10.78.0.9", "10.78.0.0/24"), peer("away", "10.77.0.9", "10.77.0.0/24")
	assert.NilError(t, c.Sync(peers))
	assert.Equal(t, fmt.Sprint(far.peers), "[near elsewhere]")
	hop, err := c.Hop(peers[2])
	assert.NilError(t, err)
	assert.Equal(t, hop.Gateway.String(), "10.77.0.9")

	// A tunnel that cannot be made does not keep others from hosts on the link.
	far.broken = errors.New("no VXLAN")
	assert.NilError(t, c.Sync(peers))
	_, err = c.Hop(peers[2])
	assert.NilError(t, err)
	_, err = c.Hop(peers[0])
	assert.ErrorIs(t, err, carrier.ErrUnreachable)
	assert.ErrorContains(t, err, "no VXLAN")
}
