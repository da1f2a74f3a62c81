package nettest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/hostconfig"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
	"clocker.io/clocker/pkg/store/storetest"
)

// Fleet is the name of every test's fleet.
const Fleet = "test"

// World is a link with hosts on it, and an etcd that they reach on it.
type World struct {
	T testing.TB
	// Outside is a machine on the link that is no host of the fleet; its
	// address is 10.77.0.1.
	Outside *Namespace
	// Etcd is the etcd of a world with one member, Cluster that of others.
	Etcd    *storetest.Server
	Cluster *storetest.Cluster
	Store   *store.Store
	plugin  func(args ...string) *exec.Cmd
	hosts   []*Host
	// etcd are the members' addresses on the link.
	etcd []string
}

// NewWorld makes a link with nothing on it. plugin makes the command that runs
// the plugin.
func NewWorld(t testing.TB, plugin func(args ...string) *exec.Cmd) *World {
	t.Helper()
	e := storetest.StartServer(t)
	return newWorld(t, plugin, &World{Etcd: e, Store: store.New(e.Client(), Fleet)}, e)
}

// NewWorldOf is [NewWorld] with an etcd of several members.
func NewWorldOf(t testing.TB, members int, plugin func(args ...string) *exec.Cmd) *World {
	t.Helper()
	c := storetest.StartCluster(t, members)
	return newWorld(t, plugin, &World{Cluster: c, Store: store.New(c.Client(), Fleet)}, c.Members...)
}

func newWorld(t testing.TB, plugin func(args ...string) *exec.Cmd, w *World, etcd ...*storetest.Server) *World {
	t.Helper()
	w.T, w.Outside, w.plugin = t, NewNamespace(t), plugin
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "link"}}
	check(t, w.Outside.Handle.LinkAdd(bridge))
	w.Outside.address("link", "10.77.0.1/24")
	for _, e := range etcd {
		w.forward(e)
	}
	check(t, registry.EnsurePool(t.Context(), w.Store, record.Pool{Name: registry.DefaultPool, CIDR: "10.208.0.0/12", SubnetBits: 20}))
	check(t, registry.EnsurePool(t.Context(), w.Store, record.Pool{Name: registry.DefaultPool6, CIDR: "fd5a:4711:77::/48", SubnetBits: 64}))
	return w
}

// forward makes a member of etcd, which listens in the test's own namespace, reachable on
// the link.
func (w *World) forward(e *storetest.Server) {
	var l net.Listener
	w.Outside.Do(func() { l = must(net.Listen("tcp", "10.77.0.1:0"))(w.T) })
	w.T.Cleanup(func() { l.Close() })
	w.etcd = append(w.etcd, "http://"+l.Addr().String())
	to := strings.TrimPrefix(e.URL(), "http://")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				d, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer d.Close()
				go func() { _, _ = io.Copy(d, c); d.Close() }()
				_, _ = io.Copy(c, d)
			}()
		}
	}()
}

func (n *Namespace) address(link, cidr string) {
	l := must(n.Handle.LinkByName(link))(n.t)
	check(n.t, n.Handle.AddrAdd(l, must(netlink.ParseAddr(cidr))(n.t)))
	check(n.t, n.Handle.LinkSetUp(l))
}

// Host is a namespace in which the plugin runs.
type Host struct {
	*Namespace
	World *World
	// ID is its id in the fleet, Address its address on the link.
	ID, Address string
	Dir         string
	process     *exec.Cmd
	exited      chan struct{}
}

// AddHost makes a host on the link, adopts it, and starts the plugin there.
func (w *World) AddHost() *Host {
	w.T.Helper()
	h := w.AddBareHost()
	h.Adopt()
	h.Start()
	return h
}

// AddBareHost makes a host on the link on which nothing runs. Its FORWARD
// chain is as Docker leaves it.
func (w *World) AddBareHost() *Host {
	w.T.Helper()
	n := len(w.hosts) + 1
	h := &Host{
		Namespace: NewNamespace(w.T), World: w, ID: fmt.Sprintf("host%d", n),
		Address: fmt.Sprintf("10.77.0.%d", 10+n), Dir: w.T.TempDir(),
	}
	w.hosts = append(w.hosts, h)
	port := fmt.Sprintf("port%d", n)
	check(w.T, w.Outside.Handle.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: port}, PeerName: "eth0", PeerNamespace: netlink.NsFd(h.ns)}))
	l := must(w.Outside.Handle.LinkByName(port))(w.T)
	check(w.T, w.Outside.Handle.LinkSetMaster(l, must(w.Outside.Handle.LinkByName("link"))(w.T)))
	check(w.T, w.Outside.Handle.LinkSetUp(l))
	h.address("eth0", h.Address+"/24")
	check(w.T, h.Handle.RouteAdd(&netlink.Route{Gw: net.ParseIP("10.77.0.1")}))
	h.Run("nft", "add table ip filter; add chain ip filter DOCKER-USER; "+
		"add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }; add rule ip filter FORWARD counter jump DOCKER-USER")
	return h
}

// Adopt writes the host's host.json.
func (h *Host) Adopt() {
	h.t.Helper()
	b := must(json.Marshal(hostconfig.Config{
		Fleet: Fleet, HostID: h.ID, Name: h.ID, Address: h.Address, Etcd: h.World.etcd,
	}))(h.t)
	check(h.t, os.MkdirAll(h.Dir+"/etc", 0o755))
	check(h.t, os.WriteFile(h.Dir+"/etc/host.json.new", b, 0o600))
	check(h.t, os.Rename(h.Dir+"/etc/host.json.new", h.Dir+"/etc/host.json"))
}

// Socket is the plugin's socket.
func (h *Host) Socket() string { return filepath.Join(h.Dir, "clocker.sock") }

// Start starts the plugin and waits until it answers.
func (h *Host) Start() {
	h.t.Helper()
	h.process = h.World.plugin("--config", h.Dir+"/etc", "--state", h.Dir+"/state", "--socket", h.Socket())
	h.process.Stdout = logWriter{h}
	h.process.Stderr = h.process.Stdout
	h.Do(func() { check(h.t, h.process.Start()) })
	h.exited = make(chan struct{})
	go func(p *exec.Cmd, done chan struct{}) {
		_ = p.Wait() // killed, as a rule
		close(done)
	}(h.process, h.exited)
	h.t.Cleanup(h.Kill)
	h.Eventually(20*time.Second, "plugin answers", func() error { return h.call("NetworkDriver.GetCapabilities", nil, nil) })
}

// Kill kills the plugin with SIGKILL, if it runs.
func (h *Host) Kill() { h.end(syscall.SIGKILL) }

// Stop stops the plugin with SIGTERM.
func (h *Host) Stop() { h.end(syscall.SIGTERM) }

func (h *Host) end(sig syscall.Signal) {
	if h.process == nil {
		return
	}
	_ = h.process.Process.Signal(sig) // it may have ended by itself
	<-h.exited
	h.process = nil
}

// loaded is how long a machine with much else to do may take for anything: what
// is awaited is a state, never a speed.
const loaded = 30 * time.Second

// Eventually waits until f succeeds, for the time given, or longer.
func (h *Host) Eventually(within time.Duration, what string, f func() error) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), max(within, loaded))
	defer cancel()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			h.t.Fatalf("%s: %s: %v", h.ID, what, err)
		case <-time.After(30 * time.Millisecond):
		}
	}
}

type logWriter struct{ h *Host }

func (w logWriter) Write(b []byte) (int, error) {
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		w.h.t.Logf("%s: %s", w.h.ID, line)
	}
	return len(b), nil
}
