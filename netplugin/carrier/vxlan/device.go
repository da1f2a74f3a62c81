package vxlan

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"

	"clocker.io/clocker/netplugin/carrier/tunnel"
	"clocker.io/clocker/netplugin/underlay"
)

// Remove takes the device away, if it is there, and with it its entries and
// all routes by it.
func Remove(h *netlink.Handle) error { return tunnel.Remove(h, DeviceName) }

// ensure makes the device, or puts right what is not as it must be.
func (d *device) ensure() error {
	under, err := underlay.Find(d.Handle, d.Address)
	if err != nil {
		return err
	}
	mtu := under.MTU - d.overhead()
	l, err := d.Handle.LinkByName(DeviceName)
	if err == nil {
		if wrong := d.differs(l); wrong != "" {
			d.Log.Info("device made anew", "device", DeviceName, "reason", wrong)
			if err := Remove(d.Handle); err != nil {
				return err
			}
			l = nil
		}
	} else if !tunnel.Missing(err) {
		return fmt.Errorf("find device %s: %w", DeviceName, err)
	}
	if l == nil || err != nil {
		if l, err = d.add(mtu); err != nil {
			return err
		}
	}
	return d.settle(l, mtu, under.Name)
}

// want is the device as it must be.
func (d *device) want(mtu int) *netlink.Vxlan {
	a := netlink.NewLinkAttrs()
	// An address that is given is kept by udev and networkd; one that is drawn
	// at random is not.
	a.Name, a.MTU, a.HardwareAddr = DeviceName, mtu, d.self.MAC
	v := &netlink.Vxlan{LinkAttrs: a, VxlanId: VNI, Port: Port, SrcAddr: d.Address.AsSlice(), Learning: false, NoAge: true}
	if d.Address.Is6() {
		v.Group, v.UDPCSum = net.IPv6zero, true
	}
	return v
}

// add makes the device, down.
func (d *device) add(mtu int) (netlink.Link, error) {
	if d.Guard != nil {
		if err := d.Guard.Hold(); err != nil {
			return nil, err
		}
	}
	err := d.Handle.LinkAdd(d.want(mtu))
	if errors.Is(err, syscall.EEXIST) {
		return nil, d.taken(err)
	}
	if errors.Is(err, syscall.EOPNOTSUPP) {
		return nil, fmt.Errorf("make device %s: this kernel has no VXLAN: load its module vxlan, or use the carrier direct or wireguard: %w", DeviceName, err)
	}
	if err != nil {
		return nil, fmt.Errorf("make device %s: %w", DeviceName, err)
	}
	return d.Handle.LinkByName(DeviceName)
}

// taken says which other device stands in the way.
func (d *device) taken(cause error) error {
	all, _ := d.Handle.LinkList() // without it the message says less
	for _, l := range all {
		if v, ok := l.(*netlink.Vxlan); ok && v.Name != DeviceName && v.Port == Port && (v.VxlanId == VNI || v.FlowBased) {
			return fmt.Errorf("make device %s: %s has UDP port %d and network identifier %d of VXLAN: remove it: %w", DeviceName, v.Name, Port, v.VxlanId, cause)
		}
	}
	return fmt.Errorf("make device %s: something else has UDP port %d: %w", DeviceName, Port, cause)
}

// differs says what of the device cannot be changed and is not as it must be,
// or "".
func (d *device) differs(l netlink.Link) string {
	v, ok := l.(*netlink.Vxlan)
	if !ok {
		return "it is no VXLAN device"
	}
	source, _ := netip.AddrFromSlice(v.SrcAddr)
	switch {
	case v.VxlanId != VNI || v.Port != Port:
		return "it has another network identifier or port"
	case source.Unmap() != d.Address:
		return fmt.Sprintf("its packets come from %s instead of %s", source.Unmap(), d.Address)
	case v.Learning || v.FlowBased || v.Proxy || v.L2miss || v.L3miss:
		return "it learns or asks"
	}
	return ""
}

// settle brings everything else about the device to what it must be.
func (d *device) settle(l netlink.Link, mtu int, under string) error {
	a := l.Attrs()
	steps := []error{tunnel.Settings(d.Sysctl, DeviceName)}
	if !bytes.Equal(a.HardwareAddr, d.self.MAC) {
		steps = append(steps, d.Handle.LinkSetHardwareAddr(l, d.self.MAC))
	}
	if a.MTU != mtu {
		steps = append(steps, d.Handle.LinkSetMTU(l, mtu))
	}
	if err := tunnel.Raise(d.Handle, l); err != nil {
		return d.taken(err)
	}
	ipv6, err := tunnel.Addresses(d.Handle, l, d.self)
	steps = append(steps, err)
	if d.SoftwareChecksums || spoils(under) {
		steps = append(steps, checksumsOff(DeviceName))
	}
	if err := errors.Join(steps...); err != nil {
		return fmt.Errorf("set device %s up: %w", DeviceName, err)
	}
	d.index, d.mtu, d.ipv6 = a.Index, mtu, ipv6
	return nil
}
