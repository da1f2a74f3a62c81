package bridged

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

const (
	// verifyEvery is how often the kernel is compared with what it should
	// have when nothing tells of a difference.
	verifyEvery = 30 * time.Second
	// settleTime is waited after the kernel told of a change, so that a burst
	// costs one comparison.
	settleTime = 200 * time.Millisecond
)

// Observe takes in what has changed in etcd below net/. It only notes which
// addresses are concerned: Run works them off.
func (s *Segment) Observe(keys store.Keys, c store.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	touched := c.Reset
	s.everything = s.everything || c.Reset
	note := func(key string) (n *network, a netip.Addr, ok bool) {
		if strings.HasPrefix(key, keys.Underlays()) {
			// A host's address changed: rare.
			s.everything, touched = true, true
			return nil, a, false
		}
		rest, ok := strings.CutPrefix(key, keys.Endpoints())
		if !ok {
			if rest, ok = strings.CutPrefix(key, keys.Services()); !ok {
				return nil, a, false
			}
		}
		id, text, _ := strings.Cut(rest, "/")
		n = s.networks[id]
		a, err := netip.ParseAddr(text)
		if n == nil || err != nil {
			return nil, a, false
		}
		if strings.HasPrefix(key, keys.Services()) && n.Subnet6.IsValid() {
			// Its other address is not in the key.
			s.everything = true
		}
		if s.changed[id] == nil {
			s.changed[id] = map[netip.Addr]bool{}
		}
		s.changed[id][a], touched = true, true
		return n, a, strings.HasPrefix(key, keys.Endpoints())
	}
	for _, r := range c.Puts {
		if n, a, ok := note(r.Key); ok {
			s.tell(n, a, r)
		}
	}
	for _, key := range c.Deletes {
		note(key)
	}
	if touched {
		s.again()
	}
}

// tell notes that etcd has heard of a local endpoint. Callers hold mu.
func (s *Segment) tell(n *network, a netip.Addr, r store.Raw) {
	e, err := store.Decode[record.Endpoint](r)
	if err != nil || e.Host != s.Host {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if l, ok := n.here[a]; ok && l.endpoint == e.Endpoint {
		l.told = true
		n.here[a] = l
	}
}

// Run keeps the kernel's entries in step with the topology until ctx ends, and
// puts back what something else removed. What changed it hears by
// [Segment.Observe].
func (s *Segment) Run(ctx context.Context, _ <-chan struct{}) error {
	drift := s.watchKernel(ctx)
	verify := time.NewTicker(verifyEvery)
	defer verify.Stop()
	if _, err := s.Check(true); err != nil {
		s.Log.Warn("bridges not compared, trying again", "error", err)
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.kick:
			if err := s.catchUp(); err != nil {
				s.Log.Warn("entries not complete, trying again", "error", err)
				drift = s.soon(ctx, drift)
			}
		case <-drift:
			s.repair(ctx)
			drift = s.watchKernel(ctx)
		case <-verify.C:
			s.repair(ctx)
		}
	}
}

// recheck makes Run go through everything soon.
func (s *Segment) recheck() {
	s.mu.Lock()
	s.everything = true
	s.mu.Unlock()
	s.again()
}

// repair compares everything with the kernel and mends it.
func (s *Segment) repair(ctx context.Context) {
	found, err := s.Check(true)
	if err != nil && ctx.Err() == nil {
		s.Log.Warn("bridges not complete, trying again", "error", err)
	}
	for _, f := range found {
		s.Log.Warn("bridge repaired", "subject", f.Subject, "what", f.Text)
	}
}

// catchUp brings the entries of what has changed to the kernel.
func (s *Segment) catchUp() error {
	s.mu.Lock()
	everything, changed := s.everything, s.changed
	s.everything, s.changed = false, map[string]map[netip.Addr]bool{}
	networks := maps.Clone(s.networks)
	s.mu.Unlock()
	var errs []error
	for id, n := range networks {
		n.mu.Lock()
		switch {
		case n.gone:
		case everything:
			errs = append(errs, s.placeAll(n))
		case len(changed[id]) > 0:
			errs = append(errs, s.placeSome(n, changed[id]))
		}
		n.mu.Unlock()
	}
	return errors.Join(errs...)
}

// placeSome brings some addresses to what the topology says. Callers hold
// n.mu.
func (s *Segment) placeSome(n *network, some map[netip.Addr]bool) error {
	want := make(map[netip.Addr]place, len(some))
	var to map[netip.Addr]bool
	s.Topology.Read(func(t *topology.Topology, _ topology.Knowledge) {
		for a := range some {
			if p, ok := find(s.Host, n.Network, a, n.here, t); ok {
				want[a] = p
			}
		}
		if n.Broadcast {
			to = listeners(s.Host, n.ID, t)
		}
	})
	var errs []error
	for a := range some {
		if p, ok := want[a]; ok {
			errs = append(errs, n.put(s.Handle, a, p))
		} else {
			errs = append(errs, n.take(s.Handle, a))
		}
	}
	return errors.Join(append(errs, n.spread(s.Handle, to))...)
}

// placeAll brings all addresses to what the topology says, as long as that is
// known at all. Callers hold n.mu.
func (s *Segment) placeAll(n *network) error {
	var want map[netip.Addr]place
	var to map[netip.Addr]bool
	known := topology.Unknown
	s.Topology.Read(func(t *topology.Topology, k topology.Knowledge) {
		known = k
		want = findAll(s.Host, n.Network, n.here, t)
		if n.Broadcast {
			to = listeners(s.Host, n.ID, t)
		}
	})
	var errs []error
	for a, p := range want {
		errs = append(errs, n.put(s.Handle, a, p))
	}
	for a := range maps.Clone(n.placed) {
		// What an earlier run left in the kernel is better than nothing.
		if _, ok := want[a]; !ok && known != topology.Unknown {
			errs = append(errs, n.take(s.Handle, a))
		}
	}
	return errors.Join(append(errs, n.spread(s.Handle, to))...)
}

// soon returns a channel that gets a value after a moment, or when the other
// one does.
func (s *Segment) soon(ctx context.Context, other <-chan struct{}) <-chan struct{} {
	out := make(chan struct{}, 1)
	go func() {
		select {
		case <-ctx.Done():
		case <-other:
		case <-time.After(time.Second):
		}
		out <- struct{}{}
	}()
	return out
}

// watchKernel returns a channel that gets one value after a device of ours
// went away, or something may have been missed.
func (s *Segment) watchKernel(ctx context.Context) <-chan struct{} {
	out := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(ctx)
	updates := make(chan netlink.LinkUpdate, 64)
	failed := make(chan error, 1)
	err := netlink.LinkSubscribeWithOptions(updates, ctx.Done(), netlink.LinkSubscribeOptions{ErrorCallback: func(err error) {
		select {
		case failed <- err:
		default:
		}
	}})
	if err != nil {
		s.Log.Warn("links not watched", "error", err)
		cancel()
		return s.soon(ctx, nil)
	}
	go func() {
		defer func() {
			cancel()
			go func() { // its reader stays until all has been taken
				for range updates {
				}
			}()
			select {
			case <-ctx.Done():
			case <-time.After(settleTime):
			}
			out <- struct{}{}
		}()
		for {
			select {
			case <-ctx.Done():
				return
			case err := <-failed:
				s.Log.Debug("kernel watch broken, starting again", "error", err)
				return
			case u, open := <-updates:
				if !open || s.lost(u) {
					return
				}
			}
		}
	}()
	return out
}

// lost reports whether an update says that a device of a network that is here
// went away or down.
func (s *Segment) lost(u netlink.LinkUpdate) bool {
	a := u.Attrs()
	if !strings.HasPrefix(a.Name, segment.BridgePrefix) && !strings.HasPrefix(a.Name, segment.TunnelPrefix) {
		return false
	}
	return s.wanted(a.Name) && (u.Header.Type == unix.RTM_DELLINK || u.Flags&unix.IFF_UP == 0)
}
