// Package tunnel is what the devices of all tunnels between hosts have in
// common: how hosts are called on them, and the settings they need so that
// strict hosts take packets from them.
//
// It makes no device.
//
// Design page: docs/design/carriers.md.
package tunnel

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Missing reports whether an error says that there is no such link.
func Missing(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound) || errors.Is(err, syscall.ENODEV)
}

// Remove takes a device away, if it is there, and with it all routes by it.
func Remove(h *netlink.Handle, name string) error {
	l, err := h.LinkByName(name)
	if Missing(err) {
		return nil
	}
	if err == nil {
		err = h.LinkDel(l)
	}
	if err != nil && !Missing(err) {
		return fmt.Errorf("remove device %s: %w", name, err)
	}
	return nil
}

// Settings writes the kernel's settings of a device. sysctl is the directory
// with the host's network settings.
func Settings(sysctl, name string) error {
	for _, x := range [][2]string{
		{"ipv6/conf/" + name + "/disable_ipv6", "0"},
		{"ipv6/conf/" + name + "/accept_ra", "0"},
		// Loose: what a host says itself comes from its underlay address.
		{"ipv4/conf/" + name + "/rp_filter", "2"},
	} {
		path := filepath.Join(sysctl, x[0])
		have, err := os.ReadFile(path)
		if err == nil && strings.TrimSpace(string(have)) == x[1] {
			continue
		}
		if err = os.WriteFile(path, []byte(x[1]), 0); errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(x[0], "ipv6/") {
			continue // the kernel has no IPv6
		}
		if err != nil {
			return fmt.Errorf("set %s: %w", x[0], err)
		}
	}
	return nil
}

// Raise sets a device up that is down, without addresses of the kernel's own
// making and without the noise for them.
func Raise(h *netlink.Handle, l netlink.Link) error {
	if l.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	_ = h.LinkSetIP6AddrGenMode(l, 1) // a kernel without IPv6
	return h.LinkSetUp(l)
}

// Addresses gives a device its host's addresses. ipv6 reports whether IPv6
// packets can use it: not where the host has no IPv6.
//
// The IPv4 address is there because the kernel takes packets whose way back is
// another one from no device without an address, however loose it is told to
// be. Its scope keeps it from being chosen as a source.
func Addresses(h *netlink.Handle, l netlink.Link, self Identity) (ipv6 bool, err error) {
	err = h.AddrAdd(l, &netlink.Addr{
		IPNet: &net.IPNet{IP: self.Own.AsSlice(), Mask: net.CIDRMask(32, 32)}, Scope: int(netlink.SCOPE_HOST),
	})
	if err != nil && !errors.Is(err, syscall.EEXIST) {
		return false, fmt.Errorf("add address %s: %w", self.Own, err)
	}
	err = h.AddrAdd(l, &netlink.Addr{
		IPNet: &net.IPNet{IP: self.LinkLocal.AsSlice(), Mask: net.CIDRMask(64, 128)},
		Flags: unix.IFA_F_NODAD, Scope: int(netlink.SCOPE_LINK),
	})
	return err == nil || errors.Is(err, syscall.EEXIST), nil
}
