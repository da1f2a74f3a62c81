package matrix

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"clocker.io/clocker/netplugin/nettest"
	"clocker.io/clocker/pkg/record"
)

// Maker makes a network of the fleet of both families, whose way out is the
// plugin's, for an application.
type Maker func(name, app string) *record.Network

// Spot is a place with what is needed to try it.
type Spot struct {
	Place
	*nettest.Namespace
	// Addresses are by family, "4" and "6".
	Addresses map[string]string
}

const (
	port = "7000"
	// patience is how long what must get through is tried, and doubt how long
	// what must not.
	patience = 6 * time.Second
	doubt    = 400 * time.Millisecond
	// atOnce is how many pairs are tried at the same time.
	atOnce = 32
)

// Run makes networks and containers on two hosts of a world and tries every
// pair. The hosts have addresses of both families on the world's link, as
// [Dual] gives them.
func Run(t *testing.T, w *nettest.World, h1, h2 *nettest.Host, create Maker) {
	t.Helper()
	spots := populate(w, h1, h2, create)
	for _, s := range spots {
		for family, a := range s.Addresses {
			if s.Kind == Container {
				via := map[string]string{"4": map[string]string{h1.ID: h1.Address, h2.ID: h2.Address}[s.Host], "6": address6(map[string]*nettest.Host{h1.ID: h1, h2.ID: h2}[s.Host])}[family]
				w.Outside.Run("ip", "-"+family, "route", "add", a, "via", via)
			}
		}
	}
	Try(t, spots)
}

// Try tries every pair of some places. The outside has routes to the
// containers, so that it is the hosts that keep it away from them.
func Try(t *testing.T, spots []Spot) {
	t.Helper()
	for _, s := range spots {
		for _, a := range s.Addresses {
			s.Serve(join(a))
		}
	}
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for _, from := range spots {
		for _, to := range spots {
			for family := range to.Addresses {
				for _, by := range Transports {
					if from.Name == to.Name || from.Addresses[family] == "" {
						continue
					}
					wg.Go(func() {
						slots <- struct{}{}
						defer func() { <-slots }()
						try(t, from, to, family, by)
					})
				}
			}
		}
	}
	wg.Wait()
}

// Dual gives a world's outside and its hosts IPv6 addresses on the link, and
// a way out by them. It is called before the plugin starts there.
func Dual(w *nettest.World, hosts ...*nettest.Host) {
	w.Outside.Run("ip", "-6", "addr", "replace", outside6+"/64", "dev", "link", "nodad")
	for _, h := range hosts {
		h.Run("ip", "-6", "addr", "replace", address6(h)+"/64", "dev", "eth0", "nodad")
		h.Run("ip", "-6", "route", "replace", "default", "via", outside6)
		h.Run("nft", "add table ip6 filter; add chain ip6 filter DOCKER-USER; "+
			"add chain ip6 filter FORWARD { type filter hook forward priority 0; policy drop; }; add rule ip6 filter FORWARD counter jump DOCKER-USER")
	}
}

const outside6 = "2001:db8:77::1"

// address6 has the same last part as the host's IPv4 address.
func address6(h *nettest.Host) string {
	return "2001:db8:77::" + h.Address[strings.LastIndex(h.Address, ".")+1:]
}

func populate(w *nettest.World, h1, h2 *nettest.Host, create Maker) []Spot {
	var spots []Spot
	container := func(name, app, network string, n *nettest.Network) {
		c := n.Run()
		spots = append(spots, Spot{
			Place:     Place{Name: name, Kind: Container, App: app, Network: network, Host: n.Host.ID},
			Namespace: c.Namespace, Addresses: map[string]string{"4": c.Address, "6": c.Address6},
		})
	}
	red, green, blue := create("red", "shop"), create("green", "shop"), create("blue", "bank")
	red1, red2, blue2 := h1.CreateNetwork(red, nil), h2.CreateNetwork(red, nil), h2.CreateNetwork(blue, nil)
	container("red, host 1", "shop", "red", red1)
	container("red again, host 1", "shop", "red", red1)
	container("red, host 2", "shop", "red", red2)
	container("green, host 1", "shop", "green", h1.CreateNetwork(green, nil))
	container("blue, host 1", "bank", "blue", h1.CreateNetwork(blue, nil))
	container("blue, host 2", "bank", "blue", blue2)
	for i, h := range []*nettest.Host{h1, h2} {
		spots = append(spots, Spot{
			Place:     Place{Name: fmt.Sprint("host ", i+1), Kind: Host, Host: h.ID},
			Namespace: h.Namespace, Addresses: map[string]string{"4": h.Address, "6": address6(h)},
		})
	}
	return append(spots, Spot{
		Place: Place{Name: "outside", Kind: Outside}, Namespace: w.Outside, Addresses: map[string]string{"4": "10.77.0.1", "6": outside6},
	})
}

func join(a string) string { return net.JoinHostPort(a, port) }

// try tries one pair once, or for a while if it must get through.
func try(t *testing.T, from, to Spot, family string, by Transport) {
	allowed, why := Verdict(from.Place, to.Place, by)
	within := doubt
	if allowed {
		within = time.Second
	}
	var err error
	for end := time.Now().Add(patience); ; {
		if by == "icmp" {
			err = from.Ping(to.Addresses[family], within)
		} else {
			_, err = from.Ask(string(by)+family, "", join(to.Addresses[family]), within)
		}
		if err == nil || !allowed || time.Now().After(end) {
			break
		}
	}
	if got := err == nil; got != allowed {
		t.Errorf("%s over IPv%s from %s to %s: through is %t and must be %t (%s): %v", by, family, from.Name, to.Name, got, allowed, why, err)
	}
}
