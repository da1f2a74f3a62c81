package nettest

import (
	"fmt"
	"net"
	"strings"

	"github.com/vishvananda/netlink"
)

// Link is a link of a [World] beside its first one, with a router to that:
// the machine outside.
type Link struct {
	world *World
	// Name is the bridge's in the namespace outside.
	Name string
	// v4 and v6 hold the number of a host.
	v4, v6 string
	mtu    int
}

// Links of a world. The machine outside has the first address of each.
const (
	firstLink = "link"
	farLink   = "far"
)

// AddLink makes a second link, with packets of at most mtu bytes. The machine
// outside, 10.78.0.1 there, forwards between the links, for IPv4 and IPv6.
func (w *World) AddLink(mtu int) *Link {
	w.T.Helper()
	l := &Link{world: w, Name: farLink, v4: "10.78.0.%d", v6: "2001:db8:78::%d", mtu: mtu}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: l.Name}}
	check(w.T, w.Outside.Handle.LinkAdd(bridge))
	check(w.T, w.Outside.Handle.LinkSetMTU(bridge, mtu))
	w.Outside.address(l.Name, fmt.Sprintf(l.v4, 1)+"/24")
	w.Outside.addressNow(l.Name, fmt.Sprintf(l.v6, 1)+"/64")
	w.Outside.addressNow(firstLink, "2001:db8:77::1/64")
	for _, name := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		w.Outside.Set(name, "1")
	}
	return l
}

// FirstLink is the link that the world's hosts are on otherwise.
func (w *World) FirstLink(mtu int) *Link {
	return &Link{world: w, Name: firstLink, v4: "10.77.0.%d", v6: "2001:db8:77::%d", mtu: mtu}
}

// AddBareHost makes a host on the link on which nothing runs. Its underlay
// address is IPv4, or IPv6 when by6 is true.
func (l *Link) AddBareHost(by6 bool) *Host {
	w := l.world
	w.T.Helper()
	h := w.newHost(l.Name)
	n := len(w.hosts)
	h.Address = fmt.Sprintf(l.v4, 10+n)
	h.address("eth0", h.Address+"/24")
	h.addressNow("eth0", fmt.Sprintf(l.v6, 10+n)+"/64")
	h.SetMTU(l.mtu)
	check(w.T, h.Handle.RouteAdd(&netlink.Route{Gw: net.ParseIP(fmt.Sprintf(l.v4, 1))}))
	check(w.T, h.Handle.RouteAdd(&netlink.Route{Gw: net.ParseIP(fmt.Sprintf(l.v6, 1))}))
	if by6 {
		h.Address = fmt.Sprintf(l.v6, 10+n)
	}
	return h
}

// AddHost makes a host on the link, adopts it, and starts the plugin there.
func (l *Link) AddHost(by6 bool) *Host {
	l.world.T.Helper()
	h := l.AddBareHost(by6)
	h.Adopt()
	h.Start()
	return h
}

// newHost makes a host with an interface eth0 on the bridge. Its FORWARD chain
// is as Docker leaves it, and packets are checked for their way back.
func (w *World) newHost(bridge string) *Host {
	w.T.Helper()
	n := len(w.hosts) + 1
	h := &Host{Namespace: NewNamespace(w.T), World: w, ID: fmt.Sprintf("host%d", n), Dir: w.T.TempDir()}
	w.hosts = append(w.hosts, h)
	h.Set("ipv4/conf/all/rp_filter", "1")
	h.Set("ipv4/conf/default/rp_filter", "1")
	port := fmt.Sprintf("port%d", n)
	check(w.T, w.Outside.Handle.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: port}, PeerName: "eth0", PeerNamespace: netlink.NsFd(h.ns)}))
	l := must(w.Outside.Handle.LinkByName(port))(w.T)
	check(w.T, w.Outside.Handle.LinkSetMaster(l, must(w.Outside.Handle.LinkByName(bridge))(w.T)))
	check(w.T, w.Outside.Handle.LinkSetUp(l))
	h.Run("nft", "add table ip filter; add chain ip filter DOCKER-USER; "+
		"add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }; add rule ip filter FORWARD counter jump DOCKER-USER")
	return h
}

// SetMTU changes the MTU of the host's interface, and makes its place on the
// link take as much.
func (h *Host) SetMTU(mtu int) {
	h.t.Helper()
	check(h.t, h.Handle.LinkSetMTU(must(h.Handle.LinkByName("eth0"))(h.t), mtu))
	port := must(h.World.Outside.Handle.LinkByName("port" + strings.TrimPrefix(h.ID, "host")))(h.t)
	if port.Attrs().MTU < mtu {
		check(h.t, h.World.Outside.Handle.LinkSetMTU(port, mtu))
	}
}

// addressNow adds an IPv6 address that can be used at once.
func (n *Namespace) addressNow(link, cidr string) {
	n.t.Helper()
	a := must(netlink.ParseAddr(cidr))(n.t)
	a.Flags = 0x02 // IFA_F_NODAD
	check(n.t, n.Handle.AddrAdd(must(n.Handle.LinkByName(link))(n.t), a))
}

// Set writes a network setting: a path under /proc/sys/net.
func (n *Namespace) Set(path, value string) {
	n.t.Helper()
	n.Run("sh", "-c", fmt.Sprintf("echo %s > /proc/sys/net/%s", value, path))
}
