package redirect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The programs are filters of the kernel's traffic control, under a number
// and a name that are ours. The newer way to attach programs (TCX) is not
// taken: it makes the kernel wait, and everybody who changes links with it,
// each time a program comes or goes.
const (
	filterPriority = 142
	filterHandle   = 1
	filterName     = "clocker"
)

func clsact(index int) *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
}

func filter(index int) *netlink.BpfFilter {
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: filterHandle, Protocol: unix.ETH_P_ALL, Priority: filterPriority,
		},
		Name: filterName, DirectAction: true,
	}
}

// prepare makes room for programs on an interface. On one that is up the kernel
// stops it for a moment, and what is sent meanwhile is lost.
func prepare(h *netlink.Handle, index int) error {
	if err := h.QdiscAdd(clsact(index)); err != nil && !errors.Is(err, syscall.EEXIST) {
		return fmt.Errorf("prepare interface %d for redirecting: %w", index, err)
	}
	return nil
}

func attach(h *netlink.Handle, index int, p *ebpf.Program) error {
	if err := prepare(h, index); err != nil {
		return err
	}
	f := filter(index)
	f.Fd = p.FD()
	if err := h.FilterReplace(f); err != nil {
		return fmt.Errorf("redirect packets of interface %d: %w", index, err)
	}
	return nil
}

// sweep removes our filter from an interface, and the queueing discipline that
// held it if nothing else is in there.
func sweep(h *netlink.Handle, index int) error {
	if err := h.FilterDel(filter(index)); err != nil && !gone(err) {
		return fmt.Errorf("redirect packets of interface %d no more: %w", index, err)
	}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		left, err := h.FilterList(byIndex(index), parent)
		if err != nil || len(left) > 0 {
			return nil //nolint:nilerr // what cannot be listed is not ours to remove
		}
	}
	if err := h.QdiscDel(clsact(index)); err != nil && !gone(err) {
		return fmt.Errorf("redirect packets of interface %d no more: %w", index, err)
	}
	return nil
}

func gone(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.EINVAL)
}

func byIndex(index int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

// Clean removes the programs of an earlier run from all interfaces but
// endpoints' own links, with which they go.
func Clean(h *netlink.Handle) error {
	qdiscs, err := h.QdiscList(nil)
	if err != nil {
		return fmt.Errorf("list queueing disciplines: %w", err)
	}
	var errs []error
	for _, q := range qdiscs {
		index := q.Attrs().LinkIndex
		if q.Type() != "clsact" {
			continue
		}
		l, err := h.LinkByIndex(index)
		if err != nil || strings.HasPrefix(l.Attrs().Name, "ck") {
			continue
		}
		filters, err := h.FilterList(l, netlink.HANDLE_MIN_INGRESS)
		if err != nil {
			continue
		}
		for _, f := range filters {
			if b, ok := f.(*netlink.BpfFilter); ok && b.Name == filterName && b.Attrs().Priority == filterPriority {
				errs = append(errs, sweep(h, index))
			}
		}
	}
	return errors.Join(errs...)
}

// Beat lets the programs work for the time from now on. A process that dies
// beats no more: then packets go the long way.
func (r *Redirect) Beat(d time.Duration) error {
	if r == nil {
		return nil
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("read clock: %w", err)
	}
	until := uint64(0)
	if d > 0 {
		until = uint64(now.Nano() + int64(d))
	}
	if err := r.tables.until.Put(number(0), binary.NativeEndian.AppendUint64(nil, until)); err != nil {
		return fmt.Errorf("let packets be redirected: %w", err)
	}
	return nil
}
