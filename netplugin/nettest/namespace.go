// Package nettest makes hosts of network namespaces for the network plugin's
// tests: each runs the real plugin as a process of its own, on a bridge that
// is in a namespace too, with a real etcd behind it. The engine's part is
// played by the test: it makes the engine's calls on the plugin's socket and
// does with the replies what libnetwork does.
//
// Nothing outside its namespaces is touched. It never runs outside tests.
//
// Design page: docs/design/networks.md.
package nettest

import (
	"os/exec"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Namespace is a network namespace, gone with the test.
type Namespace struct {
	t  testing.TB
	ns netns.NsHandle
	// Handle speaks netlink inside.
	Handle *netlink.Handle
}

// NewNamespace makes a namespace whose loopback is up.
func NewNamespace(t testing.TB) *Namespace {
	t.Helper()
	n := &Namespace{t: t}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	old := must(netns.Get())(t)
	defer old.Close()
	n.ns = must(netns.New())(t)
	check(t, netns.Set(old))
	t.Cleanup(func() { n.ns.Close() })
	n.Handle = must(netlink.NewHandleAt(n.ns))(t)
	t.Cleanup(n.Handle.Close)
	check(t, n.Handle.LinkSetUp(must(n.Handle.LinkByName("lo"))(t)))
	return n
}

// Do calls f on a thread that is in the namespace: sockets that f opens, and
// processes that it starts, are there.
func (n *Namespace) Do(f func()) {
	n.t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	old := must(netns.Get())(n.t)
	defer old.Close()
	check(n.t, netns.Set(n.ns))
	defer func() { check(n.t, netns.Set(old)) }()
	f()
}

// Run runs a command in the namespace and returns its output.
func (n *Namespace) Run(name string, args ...string) string {
	n.t.Helper()
	out, err := n.try(name, args...)
	if err != nil {
		n.t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return out
}

func (n *Namespace) try(name string, args ...string) (out string, err error) {
	var b []byte
	n.Do(func() { b, err = exec.Command(name, args...).CombinedOutput() })
	return string(b), err
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal("nettest: ", err)
	}
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		check(t, err)
		return v
	}
}

// Take moves a link from another namespace into this one.
func (n *Namespace) Take(from *Namespace, link string) {
	n.t.Helper()
	l := must(from.Handle.LinkByName(link))(n.t)
	check(n.t, from.Handle.LinkSetNsFd(l, int(n.ns)))
}
