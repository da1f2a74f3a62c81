package main

import (
	"bufio"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/netplugin/nettest"
	"clocker.io/clocker/pkg/record"
)

// answer makes a namespace answer TCP connections and UDP packets to a port
// with its name and the address that it sees; a TCP connection goes on with an
// answer for each line.
func answer(t testing.TB, n *nettest.Namespace, name, address string) {
	t.Helper()
	var l net.Listener
	var p net.PacketConn
	var err error
	n.Do(func() {
		if l, err = net.Listen("tcp", address); err == nil {
			p, err = net.ListenPacket("udp", address)
		}
	})
	assert.NilError(t, err)
	t.Cleanup(func() { l.Close(); p.Close() })
	host := func(a net.Addr) string {
		return netip.MustParseAddrPort(a.String()).Addr().Unmap().String()
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for r := bufio.NewReader(c); ; {
					if _, err := r.ReadString('\n'); err != nil {
						return
					}
					fmt.Fprintln(c, name, host(c.RemoteAddr()))
				}
			}()
		}
	}()
	go func() {
		b := make([]byte, 64)
		for {
			_, from, err := p.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = p.WriteTo([]byte(name+" "+host(from)+"\n"), from) // who asked may be gone
		}
	}()
}

// session is a connection to what [answer] serves.
type session struct {
	net.Conn
	lines *bufio.Reader
}

func open(n *nettest.Namespace, protocol, to string) (s session, err error) {
	n.Do(func() { s.Conn, err = net.DialTimeout(protocol, to, time.Second) })
	if err == nil {
		s.lines = bufio.NewReader(s.Conn)
	}
	return s, err
}

// ask returns the name of who answers, and the address that it sees.
func (s session) ask(within time.Duration) (name, seen string, err error) {
	if err := s.SetDeadline(time.Now().Add(within)); err != nil {
		return "", "", err
	}
	if _, err := fmt.Fprintln(s, "?"); err != nil {
		return "", "", err
	}
	line, err := s.lines.ReadString('\n')
	name, seen, _ = strings.Cut(strings.TrimSpace(line), " ")
	return name, seen, err
}

func once(n *nettest.Namespace, protocol, to string) (name, seen string, err error) {
	s, err := open(n, protocol, to)
	if err != nil {
		return "", "", err
	}
	defer s.Close()
	return s.ask(time.Second)
}

// named is a replica with its name in etcd.
type named struct {
	*nettest.Container
	task string
}

// publish gives a container a name as a replica of a service, as its host's
// agent does.
func publish(t testing.TB, w *nettest.World, c *nettest.Container, network, service, task string) named {
	t.Helper()
	r := record.NameRecord{App: "app", Service: service, Replica: task, Networks: map[string]record.NamedAddress{network: {Address: c.Address}}}
	_, err := w.Store.Txn().Put(w.Store.Keys.Name(c.Network.Host.ID, task), r).Commit(t.Context())
	assert.NilError(t, err)
	return named{c, task}
}

func (r named) hide(t testing.TB, w *nettest.World) {
	t.Helper()
	_, err := w.Store.Txn().Delete(w.Store.Keys.Name(r.Network.Host.ID, r.task)).Commit(t.Context())
	assert.NilError(t, err)
}

// virtual gives a service the first address of a network's last block, as the
// controller does.
func virtual(t testing.TB, w *nettest.World, n *record.Network, service string) string {
	t.Helper()
	subnet := netip.MustParsePrefix(n.Subnet)
	b := subnet.Addr().As4()
	b[2], b[3] = b[2]+15, 192
	vip := netip.AddrFrom4(b)
	k := w.Store.Keys
	_, err := w.Store.Txn().
		Put(k.Block(n.ID, netip.PrefixFrom(vip, 26).String()), record.Block{State: record.BlockServices, Since: time.Now()}).
		Put(k.Service(n.ID, vip.String()), record.Service{App: "app", Service: service, Address: vip.String()}).
		Commit(t.Context())
	assert.NilError(t, err)
	return vip.String()
}

// A service's address leads to each of its replicas alike, on all hosts, for
// every protocol, with the caller's address kept.
func TestServiceAddressIsSpread(t *testing.T) {
	w := nettest.NewWorld(t, plugin)
	h1, h2, h3 := w.AddHost(), w.AddHost(), w.AddHost()
	red, blue := network(t, w, "red", "plugin", false), network(t, w, "blue", "plugin", false)
	vip := virtual(t, w, red, "web")
	var all []named
	on := h1.CreateNetwork(red, nil)
	for i, n := range []*nettest.Network{on, h2.CreateNetwork(red, nil), h3.CreateNetwork(red, nil)} {
		c := n.Run()
		answer(t, c.Namespace, fmt.Sprint("r", i), ":80")
		all = append(all, publish(t, w, c, red.ID, "web", fmt.Sprint("web-", i)))
	}
	caller, stranger := on.Run(), h1.CreateNetwork(blue, nil).Run()
	h1.Eventually(5*time.Second, "the service answers by every replica", func() error {
		seen := map[string]bool{}
		for range 30 {
			name, _, err := once(caller.Namespace, "tcp4", vip+":80")
			if err != nil {
				return err
			}
			seen[name] = true
		}
		if len(seen) < 3 {
			return fmt.Errorf("only %v answer", seen)
		}
		return nil
	})

	for _, protocol := range []string{"tcp4", "udp4"} {
		t.Run("even over "+protocol, func(t *testing.T) {
			const n = 600
			counts := map[string]int{}
			for range n {
				name, seen, err := once(caller.Namespace, protocol, vip+":80")
				assert.NilError(t, err)
				assert.Equal(t, seen, caller.Address)
				counts[name]++
			}
			// Chi-square with two degrees of freedom: above 20 once in 22,000.
			chi := 0.0
			for _, c := range counts {
				chi += math.Pow(float64(c)-n/3, 2) / (n / 3)
			}
			assert.Assert(t, len(counts) == 3 && chi < 20, "%v, chi square %.1f", counts, chi)
		})
	}
	t.Run("echo", func(t *testing.T) { caller.Run("ping", "-c1", "-W2", vip) })
	t.Run("every port", func(t *testing.T) {
		_, _, err := once(caller.Namespace, "tcp4", vip+":81")
		assert.ErrorContains(t, err, "refused") // by the replica
	})
	t.Run("a replica calls itself", func(t *testing.T) {
		counts := map[string]int{}
		for range 60 {
			name, _, err := once(all[0].Namespace, "tcp4", vip+":80")
			assert.NilError(t, err)
			counts[name]++
		}
		assert.Equal(t, len(counts), 3, "%v", counts)
	})
	t.Run("not from another network", func(t *testing.T) {
		for _, protocol := range []string{"tcp4", "udp4"} {
			name, _, err := once(stranger.Namespace, protocol, vip+":80")
			assert.Assert(t, err != nil, "%s answered", name)
		}
	})
	t.Run("not from outside", func(t *testing.T) {
		w.Outside.Run("ip", "route", "add", vip+"/32", "via", h1.Address)
		w.Outside.NotReaches(t, vip+":80")
	})
	t.Run("table removed", func(t *testing.T) {
		h1.Run("nft", "delete", "table", "inet", "clocker-lb")
		h1.Eventually(5*time.Second, "the table is back", func() error {
			_, _, err := once(caller.Namespace, "tcp4", vip+":80")
			return err
		})
	})
}

// Sessions stay while their replica lives; one that is gone gets nothing new.
func TestServiceAddressFollowsReplicas(t *testing.T) {
	w := nettest.NewWorld(t, plugin)
	h1, h2 := w.AddHost(), w.AddHost()
	red := network(t, w, "red", "plugin", false)
	vip := virtual(t, w, red, "web")
	on1, on2 := h1.CreateNetwork(red, nil), h2.CreateNetwork(red, nil)
	caller := on1.Run()
	run := func(n *nettest.Network, name string) named {
		c := n.Run()
		answer(t, c.Namespace, name, ":80")
		return publish(t, w, c, red.ID, "web", name)
	}
	a, b := run(on1, "a"), run(on2, "b")
	// until returns a session with the replica of that name.
	until := func(protocol, name string) session {
		var s session
		h1.Eventually(5*time.Second, "a session with "+name, func() error {
			var err error
			if s, err = open(caller.Namespace, protocol, vip+":80"); err != nil {
				return err
			}
			got, _, err := s.ask(time.Second)
			if err != nil || got != name {
				s.Close()
				return fmt.Errorf("answered by %q: %w", got, err)
			}
			return nil
		})
		t.Cleanup(func() { s.Close() })
		return s
	}
	withA, withB, flowB := until("tcp4", "a"), until("tcp4", "b"), until("udp4", "b")

	// b has no name any more, but lives.
	b.hide(t, w)
	hidden := time.Now() // from the write on: that may wait for etcd's disk
	last := hidden
	for end := hidden.Add(time.Minute); time.Since(last) < 1500*time.Millisecond && time.Now().Before(end); {
		started := time.Now()
		name, _, err := once(caller.Namespace, "tcp4", vip+":80")
		assert.NilError(t, err)
		if name == "b" {
			last = started
		}
	}
	took := last.Sub(hidden)
	t.Logf("last new connection to the replica %s after its name was deleted", took)
	assert.Assert(t, took < 10*time.Second, "it goes on to get some")
	for _, s := range []session{withA, withB} {
		_, _, err := s.ask(nettest.Patience)
		assert.NilError(t, err, "a session must go on while its replica lives")
	}
	name, _, err := flowB.ask(nettest.Patience)
	assert.NilError(t, err)
	assert.Equal(t, name, "a", "a flow without a session goes to who is there")

	// b dies: its session is reset at the next packet.
	b.Stop()
	h1.Eventually(5*time.Second, "the session is reset", func() error {
		if _, _, err := withB.ask(300 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "reset") && !strings.Contains(err.Error(), "broken pipe") {
			return fmt.Errorf("not reset: %w", err)
		}
		return nil
	})
	_, _, err = withA.ask(nettest.Patience)
	assert.NilError(t, err)

	// Without any replica callers are told at once.
	a.hide(t, w)
	h1.Eventually(time.Second, "the service refuses", func() error {
		started := time.Now()
		_, _, err := once(caller.Namespace, "tcp4", vip+":80")
		if err == nil || !strings.Contains(err.Error(), "refused") || time.Since(started) > 300*time.Millisecond {
			return fmt.Errorf("%w after %s", err, time.Since(started))
		}
		return nil
	})

	// A new replica is used at once.
	run(on2, "c")
	until("tcp4", "c")
}

// Services have IPv6 addresses too.
func TestServiceAddressOverIPv6(t *testing.T) {
	w := nettest.NewWorld(t, plugin)
	h1, h2 := w.AddHost(), w.AddHost()
	n, err := registry.Create(t.Context(), w.Store, time.Now(), registry.Request{Name: "six", App: "app", Egress: "plugin", IPv6: true})
	assert.NilError(t, err)
	subnet := netip.MustParsePrefix(n.Subnet6)
	at := subnet.Addr().As16()
	at[14], at[15] = 0xff, 0xc0
	vip := netip.AddrFrom16(at).String()
	k := w.Store.Keys
	_, err = w.Store.Txn().
		Put(k.Block(n.ID, vip+"/122"), record.Block{State: record.BlockServices, Since: time.Now()}).
		Put(k.Service(n.ID, vip), record.Service{App: "app", Service: "web", Address6: vip}).
		Commit(t.Context())
	assert.NilError(t, err)
	on1, on2 := h1.CreateNetwork(&n, nil), h2.CreateNetwork(&n, nil)
	caller := on1.Run()
	for i, at := range []*nettest.Network{on1, on2} {
		c, name := at.Run(), fmt.Sprint("r", i)
		answer(t, c.Namespace, name, ":80")
		r := record.NameRecord{App: "app", Service: "web", Replica: name, Networks: map[string]record.NamedAddress{n.ID: {Address: c.Address, Address6: c.Address6}}}
		_, err := w.Store.Txn().Put(k.Name(at.Host.ID, name), r).Commit(t.Context())
		assert.NilError(t, err)
	}
	for _, protocol := range []string{"tcp6", "udp6"} {
		h1.Eventually(5*time.Second, "both replicas answer", func() error {
			seen := map[string]bool{}
			for range 30 {
				name, from, err := once(caller.Namespace, protocol, "["+vip+"]:80")
				if err != nil {
					return err
				}
				assert.Equal(t, from, caller.Address6)
				seen[name] = true
			}
			if len(seen) < 2 {
				return fmt.Errorf("%v answer", seen)
			}
			return nil
		})
	}
	caller.Run("ping", "-6", "-c1", "-W2", vip)
	_, _, err = once(caller.Namespace, "tcp6", "["+vip+"]:81")
	assert.ErrorContains(t, err, "refused")
}

func listenTCP(address string) (net.Listener, error) { return net.Listen("tcp", address) }
