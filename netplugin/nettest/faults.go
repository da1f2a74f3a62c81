package nettest

import (
	"net"
	"path/filepath"
	"syscall"

	"github.com/vishvananda/netlink"
)

// Pause stops the plugin where it is (SIGSTOP) until [Host.Resume].
func (h *Host) Pause() { h.signal(syscall.SIGSTOP) }

// Resume lets a paused plugin go on.
func (h *Host) Resume() { h.signal(syscall.SIGCONT) }

func (h *Host) signal(s syscall.Signal) {
	if h.process != nil {
		_ = h.process.Process.Signal(s) // it may have ended by itself
	}
}

// Running reports whether the plugin has been started and not ended by the
// test.
func (h *Host) Running() bool { return h.process != nil }

// StateDir is where the plugin keeps its state.
func (h *Host) StateDir() string { return filepath.Join(h.Dir, "state", "net") }

// Cut takes the host off the link.
func (h *Host) Cut() error {
	l, err := h.Handle.LinkByName("eth0")
	if err != nil {
		return err
	}
	return h.Handle.LinkSetDown(l)
}

// Rejoin puts the host back on the link, with the route that went with it.
func (h *Host) Rejoin() error {
	l, err := h.Handle.LinkByName("eth0")
	if err != nil {
		return err
	}
	if err := h.Handle.LinkSetUp(l); err != nil {
		return err
	}
	return h.Handle.RouteReplace(&netlink.Route{Gw: net.IPv4(10, 77, 0, 1)})
}
