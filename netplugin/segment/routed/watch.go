package routed

import (
	"context"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// watchKernel signals when routes of ours or addresses went away, or when it
// may have missed that.
func (s *Segment) watchKernel(ctx context.Context) <-chan struct{} {
	out := make(chan struct{}, 1)
	signal := func() {
		select {
		case out <- struct{}{}:
		default:
		}
	}
	go func() {
		for ctx.Err() == nil {
			s.watchOnce(ctx, signal)
			signal()
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}()
	return out
}

func (s *Segment) watchOnce(ctx context.Context, signal func()) {
	done := make(chan struct{})
	defer close(done)
	failed := make(chan error, 2)
	onError := func(err error) {
		select {
		case failed <- err:
		default:
		}
	}
	routes := make(chan netlink.RouteUpdate, 64)
	if err := netlink.RouteSubscribeWithOptions(routes, done, netlink.RouteSubscribeOptions{ErrorCallback: onError}); err != nil {
		s.Log.Warn("routes not watched", "error", err)
		return
	}
	addrs := make(chan netlink.AddrUpdate, 64)
	if err := netlink.AddrSubscribeWithOptions(addrs, done, netlink.AddrSubscribeOptions{ErrorCallback: onError}); err != nil {
		s.Log.Warn("addresses not watched", "error", err)
		return
	}
	// Both channels must be drained when this ends, or their readers stay.
	defer func() {
		go func() {
			for range routes {
			}
		}()
		go func() {
			for range addrs {
			}
		}()
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case err := <-failed:
			s.Log.Debug("kernel watch broken, starting again", "error", err)
			return
		case u, ok := <-routes:
			if !ok {
				return
			}
			if u.Type == unix.RTM_DELROUTE && u.Protocol == Protocol && !s.gone(&u.Route) {
				signal()
			}
		case u, ok := <-addrs:
			if !ok {
				return
			}
			if !u.NewAddr && !u.LinkAddress.IP.IsLinkLocalUnicast() {
				signal()
			}
		}
	}
}

// gone reports whether a route is one of an endpoint that went with its link.
func (s *Segment) gone(r *netlink.Route) bool {
	if r.Dst == nil || r.Gw != nil || r.Via != nil {
		return false
	}
	p, ok := prefix(r.Dst)
	return ok && p.IsSingleIP() && !s.local(p)
}
