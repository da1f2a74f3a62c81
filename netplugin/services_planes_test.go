package main

import (
	"fmt"
	"net"
	"net/netip"
	"path"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/netplugin/nettest"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// spreadPlane is a way to carry a network, with hosts on one link or on two.
type spreadPlane struct {
	segment, carrier string
	far              bool
}

// spreadFleet is two hosts, with a caller and a replica on the first and a
// replica on the second, of a service with addresses of both families.
type spreadFleet struct {
	*nettest.World
	near, far *nettest.Host
	network   record.Network
	on1, on2  *nettest.Network
	caller    *nettest.Container
	a, b      named
	vip, vip6 string
}

func newSpreadFleet(t *testing.T, p spreadPlane) *spreadFleet {
	t.Helper()
	w := nettest.NewWorld(t, plugin)
	first := w.FirstLink(1500)
	second := first
	if p.far {
		second = w.AddLink(1400)
	}
	f := &spreadFleet{World: w, near: first.AddHost(false), far: second.AddHost(false)}
	var err error
	f.network, err = registry.Create(t.Context(), w.Store, time.Now(), registry.Request{
		Name: "red", App: "app", Egress: "plugin", Segment: p.segment, Carrier: p.carrier, IPv6: true,
	})
	assert.NilError(t, err)
	f.vip, f.vip6 = virtualBoth(t, w, &f.network, "web")
	f.on1, f.on2 = f.near.CreateNetwork(&f.network, nil), f.far.CreateNetwork(&f.network, nil)
	f.caller = f.on1.Run()
	f.a, f.b = f.replica(t, f.on1, "a"), f.replica(t, f.on2, "b")
	return f
}

// virtualBoth gives a service addresses of both families, of the last blocks.
func virtualBoth(t testing.TB, w *nettest.World, n *record.Network, service string) (v4, v6 string) {
	t.Helper()
	a := netip.MustParsePrefix(n.Subnet).Addr().As4()
	a[2], a[3] = a[2]+15, 192
	b := netip.MustParsePrefix(n.Subnet6).Addr().As16()
	b[14], b[15] = 0xff, 0xc0
	vip, vip6 := netip.AddrFrom4(a), netip.AddrFrom16(b)
	k := w.Store.Keys
	_, err := w.Store.Txn().
		Put(k.Block(n.ID, netip.PrefixFrom(vip, 26).String()), record.Block{State: record.BlockServices, Since: time.Now()}).
		Put(k.Block(n.ID, netip.PrefixFrom(vip6, 122).String()), record.Block{State: record.BlockServices, Since: time.Now()}).
		Put(k.Service(n.ID, vip.String()), record.Service{App: "app", Service: service, Address: vip.String(), Address6: vip6.String()}).
		Commit(t.Context())
	assert.NilError(t, err)
	return vip.String(), vip6.String()
}

// replica starts a replica of the service that answers with its name.
func (f *spreadFleet) replica(t testing.TB, on *nettest.Network, name string) named {
	t.Helper()
	c := on.Run()
	answer(t, c.Namespace, name, ":80")
	r := record.NameRecord{App: "app", Service: "web", Replica: name, Networks: map[string]record.NamedAddress{
		f.network.ID: {Address: c.Address, Address6: c.Address6},
	}}
	_, err := f.Store.Txn().Put(f.Store.Keys.Name(on.Host.ID, name), r).Commit(t.Context())
	assert.NilError(t, err)
	return named{c, name}
}

// answers waits until just the named replicas answer a caller, and returns
// the addresses that they see.
func (f *spreadFleet) answers(t testing.TB, from *nettest.Namespace, protocol, to string, want ...string) (seenBy map[string]string) {
	t.Helper()
	f.near.Eventually(5*time.Second, fmt.Sprintf("%v answer %s at %s", want, protocol, to), func() error {
		seenBy = map[string]string{}
		for range 30 {
			name, from, err := once(from, protocol, to)
			if err != nil {
				return err
			}
			seenBy[name] = from
		}
		for _, name := range want {
			if seenBy[name] == "" {
				return fmt.Errorf("%s does not answer: %v", name, seenBy)
			}
		}
		if len(seenBy) != len(want) {
			return fmt.Errorf("%v answer", seenBy)
		}
		return nil
	})
	return seenBy
}

// Services' addresses and ports of every host work alike on every way to carry
// a network, with hosts on one link and on two, in both families.
func TestServicesOnEveryPlane(t *testing.T) {
	for _, p := range []spreadPlane{
		{"routed", "vxlan", true},
		{"routed", "auto", false},
		{"bridged", "direct", false},
		{"bridged", "auto", true},
	} {
		where := map[bool]string{false: "one link", true: "two links"}[p.far]
		t.Run(fmt.Sprintf("%s by %s on %s", p.segment, p.carrier, where), func(t *testing.T) {
			f := newSpreadFleet(t, p)
			for _, to := range []struct{ v, vip, caller, a string }{
				{"4", f.vip, f.caller.Address, f.a.Address}, {"6", f.vip6, f.caller.Address6, f.a.Address6},
			} {
				at := net.JoinHostPort(to.vip, "80")
				for _, protocol := range []string{"tcp", "udp"} {
					for name, seen := range f.answers(t, f.caller.Namespace, protocol+to.v, at, "a", "b") {
						assert.Equal(t, seen, to.caller, "%s sees", name)
					}
					// From a replica: to the other one and to itself.
					seen := f.answers(t, f.a.Namespace, protocol+to.v, at, "a", "b")
					assert.Equal(t, seen["b"], to.a)
				}
				f.caller.Run("ping", "-c1", "-W2", to.vip)
				_, _, err := once(f.caller.Namespace, "tcp"+to.v, net.JoinHostPort(to.vip, "81"))
				assert.ErrorContains(t, err, "refused")
			}
			f.follows(t)
			f.mesh(t)
			f.machine(t)
		})
	}
}

// follows checks that a replica without a name gets nothing new, that its
// sessions go on until it dies, and that callers are told when none is left.
func (f *spreadFleet) follows(t *testing.T) {
	t.Helper()
	at := net.JoinHostPort(f.vip, "80")
	var held session
	f.near.Eventually(5*time.Second, "a session with b", func() error {
		s, err := open(f.caller.Namespace, "tcp4", at)
		if err != nil {
			return err
		}
		if name, _, err := s.ask(time.Second); err != nil || name != "b" {
			s.Close()
			return fmt.Errorf("%q answers: %w", name, err)
		}
		held = s
		return nil
	})
	defer held.Close()
	f.b.hide(t, f.World)
	f.answers(t, f.caller.Namespace, "tcp4", at, "a")
	f.answers(t, f.caller.Namespace, "udp4", at, "a")
	_, _, err := held.ask(nettest.Patience)
	assert.NilError(t, err, "a session must go on while its replica lives")
	f.b.Stop()
	f.near.Eventually(5*time.Second, "the session is reset", func() error {
		_, _, err := held.ask(300 * time.Millisecond)
		if err == nil || !strings.Contains(err.Error(), "reset") && !strings.Contains(err.Error(), "broken pipe") {
			return fmt.Errorf("not reset: %w", err)
		}
		return nil
	})
	f.a.hide(t, f.World)
	for _, to := range []string{"tcp4 " + at, "tcp6 " + net.JoinHostPort(f.vip6, "80")} {
		protocol, to, _ := strings.Cut(to, " ")
		f.near.Eventually(2*time.Second, to+" refuses", func() error {
			started := time.Now()
			_, _, err := once(f.caller.Namespace, protocol, to)
			if err == nil || !strings.Contains(err.Error(), "refused") || time.Since(started) > 300*time.Millisecond {
				return fmt.Errorf("%w after %s", err, time.Since(started))
			}
			return nil
		})
	}
	f.a = f.replica(t, f.on1, "a2")
	f.b = f.replica(t, f.on2, "b2")
	f.answers(t, f.caller.Namespace, "tcp4", at, "a2", "b2")
}

// machine checks that a host which is attached to the network asks services as
// its containers do, by its own address there, and no other host does.
func (f *spreadFleet) machine(t *testing.T) {
	t.Helper()
	vips := map[string]string{"tcp4": net.JoinHostPort(f.vip, "80"), "tcp6": net.JoinHostPort(f.vip6, "80")}
	for protocol, to := range vips {
		name, _, err := once(f.near.Namespace, protocol, to)
		assert.Assert(t, err != nil, "%s answers a host that is not on the network", name)
	}
	k := f.Store.Keys
	_, err := f.Store.Txn().Put(k.Attached(f.network.ID, f.near.ID), record.Attached{Host: f.near.ID, Network: f.network.ID, Since: time.Now()}).Commit(t.Context())
	assert.NilError(t, err)
	own := map[bool]string{}
	f.near.Eventually(5*time.Second, "machine's addresses are published", func() error {
		all, _, err := store.List[record.Endpoint](t.Context(), f.Store, k.Endpoints()+f.network.ID+"/")
		for _, e := range all {
			if a, err := netip.ParseAddr(path.Base(e.Key)); err == nil && e.Value.Machine {
				own[a.Is4()] = a.String()
			}
		}
		if len(own) != 2 {
			return fmt.Errorf("%v so far: %w", own, err)
		}
		return nil
	})
	for protocol, to := range vips {
		for name, seen := range f.answers(t, f.near.Namespace, protocol, to, "a2", "b2") {
			assert.Equal(t, seen, own[protocol == "tcp4"], "%s sees", name)
		}
	}
	name, _, err := once(f.far.Namespace, "tcp4", vips["tcp4"])
	assert.Assert(t, err != nil, "%s answers a host that is not on the network", name)
	f.b.hide(t, f.World)
	f.a.hide(t, f.World)
	for protocol, to := range vips {
		f.near.Eventually(2*time.Second, to+" refuses the machine", func() error {
			if _, _, err := once(f.near.Namespace, protocol, to); err == nil || !strings.Contains(err.Error(), "refused") {
				return fmt.Errorf("%w", err)
			}
			return nil
		})
	}
	_, err = f.Store.Txn().Delete(k.Attached(f.network.ID, f.near.ID)).Commit(t.Context())
	assert.NilError(t, err)
	f.near.Eventually(5*time.Second, "nothing of the machine is left", func() error {
		if out := f.near.Run("ip", "route", "show", "table", "all") + f.near.Run("ip", "-6", "route", "show", "table", "all"); strings.Contains(out, f.vip) || strings.Contains(out, f.vip6) {
			return fmt.Errorf("a route to a service: %s", out)
		}
		return nil
	})
}

// mesh checks a port of every host, asked from outside, from containers and
// from the hosts.
func (f *spreadFleet) mesh(t *testing.T) {
	t.Helper()
	for _, protocol := range []string{"tcp", "udp"} {
		p := record.Published{App: "app", Service: "web", Network: f.network.ID, Protocol: protocol, HostPort: 8080, Port: 80}
		_, err := f.Store.Txn().Put(f.Store.Keys.Published(protocol, 8080), p).Commit(t.Context())
		assert.NilError(t, err)
	}
	for _, h := range []*nettest.Host{f.near, f.far} {
		at := net.JoinHostPort(h.Address, "8080")
		for _, protocol := range []string{"tcp4", "udp4"} {
			seen := f.answers(t, f.Outside, protocol, at, "a2", "b2")
			local := map[*nettest.Host]string{f.near: "a2", f.far: "b2"}[h]
			for name, from := range seen {
				if name == local {
					assert.Assert(t, strings.HasSuffix(from, ".0.1"), "%s sees %s: the client's address is kept where the replica is", name, from)
				} else {
					assert.Equal(t, from, h.Address, "%s sees", name)
				}
			}
		}
	}
	at := net.JoinHostPort(f.near.Address, "8080")
	f.answers(t, f.caller.Namespace, "tcp4", at, "a2", "b2")
	f.answers(t, f.a.Namespace, "tcp4", at, "a2", "b2")
	f.answers(t, f.near.Namespace, "tcp4", at, "a2", "b2")
	// By IPv6 a host leads to its own.
	six := strings.Replace(f.near.Address, "10.77.0.", "2001:db8:77::", 1)
	f.Outside.Run("ip", "addr", "replace", "2001:db8:77::1/64", "dev", "link", "nodad")
	f.answers(t, f.Outside, "tcp6", net.JoinHostPort(six, "8080"), "a2")
}

// The first connections to a network's first service are as good as any: from
// the moment the host translates them, what comes back is too, though packets
// between containers went past that until then.
func TestFirstServiceResetsNothing(t *testing.T) {
	w := nettest.NewWorld(t, plugin)
	h1, h2 := w.AddHost(), w.AddHost()
	for _, segment := range []string{"routed", "bridged"} {
		for round := range 2 {
			n, err := registry.Create(t.Context(), w.Store, time.Now(), registry.Request{
				Name: fmt.Sprint(segment, round), App: "app", Egress: "plugin", Segment: segment, IPv6: true,
			})
			assert.NilError(t, err)
			f := &spreadFleet{World: w, near: h1, far: h2, network: n}
			f.on1, f.on2 = h1.CreateNetwork(&n, nil), h2.CreateNetwork(&n, nil)
			f.caller = f.on1.Run()
			f.a, f.b = f.replica(t, f.on1, fmt.Sprint("a", segment, round)), f.replica(t, f.on2, fmt.Sprint("b", segment, round))
			for _, r := range []named{f.a, f.b} {
				f.answers(t, f.caller.Namespace, "tcp4", r.Address+":80", r.task)
			}
			// Shorter ways are taken by then.
			for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
				f.answers(t, f.caller.Namespace, "tcp4", f.b.Address+":80", f.b.task)
			}
			f.vip, f.vip6 = virtualBoth(t, w, &n, "web")
			seen := map[string]bool{}
			h1.Eventually(5*time.Second, "both replicas answer", func() error {
				name, _, err := once(f.caller.Namespace, "tcp4", f.vip+":80")
				switch {
				case err == nil:
					seen[name] = true
				case strings.Contains(err.Error(), "reset"):
					t.Fatalf("%s, round %d: %v", segment, round, err)
				case len(seen) > 0:
					t.Fatalf("%s, round %d: after answers: %v", segment, round, err)
				}
				if len(seen) < 2 {
					return fmt.Errorf("%v so far: %w", seen, err)
				}
				return nil
			})
			for _, r := range []named{f.a, f.b} {
				r.hide(t, w)
				r.Stop()
			}
		}
	}
}
