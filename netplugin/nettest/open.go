package nettest

import (
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// OpenNamespace gives a namespace that somebody else has made, by its file: a
// host's or a container's on a testbed. It is let go with the test, and not
// taken away.
func OpenNamespace(t testing.TB, file string) *Namespace {
	t.Helper()
	n := &Namespace{t: t, ns: must(netns.GetFromPath(file))(t)}
	t.Cleanup(func() { n.ns.Close() })
	n.Handle = must(netlink.NewHandleAt(n.ns))(t)
	t.Cleanup(n.Handle.Close)
	return n
}
