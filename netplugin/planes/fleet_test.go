package planes

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/netplugin/nettest"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// plugin makes commands that run the plugin; set by TestMain.
var plugin func(args ...string) *exec.Cmd

func TestMain(m *testing.M) { os.Exit(nettest.Main(m, &plugin)) }

// plane is one way to carry a network.
type plane struct {
	segment, carrier string
	// far puts the hosts on two links with a router between; the second link
	// takes smaller packets.
	far bool
}

func (p plane) String() string {
	where := "one link"
	if p.far {
		where = "two links"
	}
	return p.segment + " by " + p.carrier + " on " + where
}

// planes are all that make sense: direct needs one link, and frames are not
// encrypted.
var planes = []plane{
	{"routed", "direct", false},
	{"routed", "vxlan", false},
	{"routed", "vxlan", true},
	{"routed", "wireguard", false},
	{"routed", "wireguard", true},
	{"routed", "auto", false},
	{"routed", "auto", true},
	{"bridged", "direct", false},
	{"bridged", "vxlan", true},
	{"bridged", "auto", true},
}

// fleet is two hosts with two networks, red on both and blue on the first.
type fleet struct {
	*nettest.World
	plane
	near, far  *nettest.Host
	red        *record.Network
	red1, red2 *nettest.Network
	blue1      *nettest.Network
	// before is what was in the first host's kernel.
	before string
	// a and b are on red on the first host, c is on the other; x is on blue.
	a, b, c, x *nettest.Container
}

// smallMTU is that of the second link.
const smallMTU = 1400

func newFleet(t *testing.T, p plane) *fleet {
	t.Helper()
	w := nettest.NewWorld(t, plugin)
	f := &fleet{World: w, plane: p}
	second := w.FirstLink(1500)
	if p.far {
		second = w.AddLink(smallMTU)
	}
	w.Outside.Run("ip", "addr", "replace", "2001:db8:77::1/64", "dev", "link", "nodad")
	f.near, f.far = w.FirstLink(1500).AddHost(false), second.AddHost(false)
	f.near.Eventually(10*time.Second, "both hosts are known", func() error {
		us, _, err := store.List[record.Underlay](t.Context(), w.Store, w.Store.Keys.Underlays())
		if err == nil && len(us) < 2 {
			err = fmt.Errorf("%d hosts so far", len(us))
		}
		return err
	})
	f.settled()
	f.before = kernel(f.near)
	f.red = f.network("red")
	blue := f.network("blue")
	f.red1, f.red2, f.blue1 = f.near.CreateNetwork(f.red, nil), f.far.CreateNetwork(f.red, nil), f.near.CreateNetwork(blue, nil)
	f.a, f.b, f.c, f.x = f.red1.Run(), f.red1.Run(), f.red2.Run(), f.blue1.Run()
	return f
}

// network makes a network of the fleet with both families.
func (f *fleet) network(name string) *record.Network {
	f.T.Helper()
	n, err := registry.Create(f.T.Context(), f.Store, time.Now(), registry.Request{
		Name: name, App: "app", Segment: f.segment, Carrier: f.carrier, IPv6: true,
	})
	assert.NilError(f.T, err)
	return &n
}

// settled waits until the first host's rules that need no network are there.
func (f *fleet) settled() {
	f.near.Eventually(10*time.Second, "rules", func() error {
		out := f.near.Run("nft", "list", "ruleset")
		want := []string{`"ck*" counter`, "meta mark & 0x02000000 == 0x02000000 counter", f.near.Address, f.far.Address}
		for _, h := range []*nettest.Host{f.near, f.far} {
			want = append(want, "2001:db8:", "::1"+h.ID[len("host"):])
		}
		for _, w := range want {
			if !contains(out, w) {
				return fmt.Errorf("no rule with %s yet", w)
			}
		}
		return nil
	})
}

// addresses are a container's with a port.
func addresses(c *nettest.Container, port string) []string {
	return []string{net.JoinHostPort(c.Address, port), net.JoinHostPort(c.Address6, port)}
}

// reaches waits until a container can be asked at all of its addresses.
func reaches(t *testing.T, from *nettest.Namespace, to *nettest.Container) {
	t.Helper()
	for _, a := range addresses(to, "80") {
		from.Reaches(t, a)
	}
}
