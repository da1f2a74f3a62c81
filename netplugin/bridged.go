package main

import (
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"clocker.io/clocker/netplugin/segment/bridged"
	"clocker.io/clocker/netplugin/segment/routed"
	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/pkg/store"
)

// frames is the bridged segment with sockets to the kernel of its own: its
// entries must not wait for what others ask the kernel for.
type frames struct {
	*bridged.Segment
	handle, remover *netlink.Handle
}

func newBridged(h host, id string, address netip.Addr, view *topology.View, log *slog.Logger) (*frames, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	remover, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		handle.Close()
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &frames{
		Segment: bridged.New(bridged.Config{
			Host: id, Address: address, Handle: handle, Remover: remover, Sysctl: h.sysctl, Topology: view, Log: log,
			Forward6: routed.Sysctl(h.sysctl).EnsureForwarding6,
		}),
		handle: handle, remover: remover,
	}, nil
}

// Close ends the sockets; what is in the kernel stays.
func (f *frames) Close() {
	f.handle.Close()
	f.remover.Close()
}

// observe takes the changes of the topology.
func (f *frames) observe(keys store.Keys) func(store.Change) {
	return func(c store.Change) { f.Observe(keys, c) }
}
