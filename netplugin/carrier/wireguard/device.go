package wireguard

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink"

	"clocker.io/clocker/netplugin/carrier/tunnel"
	"clocker.io/clocker/netplugin/underlay"
)

// The types of interface that serve.
const (
	typeKernel = "wireguard"
	typeTUN    = "tuntap"
)

// ensure makes the device and starts its engine, or puts right what is not as
// it must be.
func (d *device) ensure() error {
	under, err := underlay.Find(d.Handle, d.Address)
	if err != nil {
		return err
	}
	mtu := under.MTU - d.overhead()
	l, err := d.find()
	if err != nil {
		return err
	}
	if d.engine != nil && (l == nil || l.Attrs().Index != d.index) {
		d.Log.Info("device was removed, made anew", "device", DeviceName)
		d.stop()
	}
	if d.engine == nil {
		if l, err = d.start(l, mtu); err != nil {
			return err
		}
	}
	steps := []error{tunnel.Settings(d.Sysctl, DeviceName)}
	if l.Attrs().MTU != mtu {
		steps = append(steps, d.Handle.LinkSetMTU(l, mtu))
	}
	steps = append(steps, tunnel.Raise(d.Handle, l))
	_, err = tunnel.Addresses(d.Handle, l, d.self)
	if err := errors.Join(append(steps, err)...); err != nil {
		return fmt.Errorf("set device %s up: %w", DeviceName, err)
	}
	d.index, d.mtu = l.Attrs().Index, mtu
	return nil
}

// find returns the device, nil when there is none. Somebody else's interface
// of its name is an error.
func (d *device) find() (netlink.Link, error) {
	l, err := d.Handle.LinkByName(DeviceName)
	if tunnel.Missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find device %s: %w", DeviceName, err)
	}
	if t := l.Type(); t != typeKernel && t != typeTUN {
		return nil, fmt.Errorf("make device %s: an interface of that name exists, of type %s: remove it", DeviceName, t)
	}
	return l, nil
}

// start starts an engine on the device, or makes it: in the kernel where that
// can be.
func (d *device) start(l netlink.Link, mtu int) (netlink.Link, error) {
	if l == nil && !d.Userspace {
		a := netlink.NewLinkAttrs()
		a.Name, a.MTU = DeviceName, mtu
		err := d.Handle.LinkAdd(&netlink.Wireguard{LinkAttrs: a})
		if err != nil && !errors.Is(err, syscall.EOPNOTSUPP) {
			return nil, fmt.Errorf("make device %s: %w", DeviceName, err)
		}
		if err == nil {
			if l, err = d.find(); err != nil {
				return nil, err
			}
		}
	}
	var err error
	if l != nil && l.Type() == typeKernel {
		d.engine, err = startKernel(d.key)
	} else {
		d.engine, err = startUserspace(d.key, mtu, d.Log)
	}
	if err != nil {
		d.engine = nil
		return nil, fmt.Errorf("start device %s: %w", DeviceName, err)
	}
	if l, err = d.find(); err == nil && l == nil {
		err = fmt.Errorf("start device %s: it was removed", DeviceName)
	}
	return l, err
}
