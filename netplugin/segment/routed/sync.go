package routed

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"clocker.io/clocker/netplugin/carrier"
	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/topology"
)

const (
	// verifyEvery is how often the kernel is compared with what it should
	// have when nothing tells of a difference.
	verifyEvery = 30 * time.Second
	// settleTime is waited after the kernel told of a change, so that a burst
	// costs one comparison. What changes in the fleet does not wait for it.
	settleTime = 500 * time.Millisecond
	// leastRetry is how soon a sync that was not complete is repeated, twice as
	// long each time up to verifyEvery: what it lacked may be there at once, or
	// for long not, as a host that has not said how it is reached.
	leastRetry = 250 * time.Millisecond
	// gatherTime is the least time between two plans, so that a burst of
	// changes in the fleet costs few of them.
	gatherTime = 3 * time.Millisecond
	// mostRest bounds the time between two plans: what took long was most
	// likely the wait for others who change links.
	mostRest = 20 * time.Millisecond
)

// Kinds are what the routes of a host follow from.
var Kinds = []topology.Kind{topology.Network, topology.Block, topology.Endpoint, topology.Underlay, topology.Rule, topology.Service}

// Run keeps the host's routes in step with the topology until ctx ends, and
// puts back what something else removed. changed signals a change of the
// topology.
func (s *Segment) Run(ctx context.Context, changed <-chan struct{}) error {
	drift := s.watchKernel(ctx)
	verify := time.NewTicker(verifyEvery)
	defer verify.Stop()
	// Both are nil while there is nothing to wait for.
	var settled, again <-chan time.Time
	wait := leastRetry
	force := true
	for {
		start := time.Now()
		err := s.sync(force)
		compared := force
		again, force = nil, false
		if err == nil {
			wait = leastRetry
		} else {
			s.Log.Warn("routes not complete, trying again", "error", err)
			again = time.After(wait)
			wait = min(2*wait, verifyEvery)
		}
		// However much there is to plan, it never takes all of a processor.
		// Comparing with the kernel is seldom, and a change waits no longer
		// for it than that takes.
		rest := max(gatherTime, min(2*time.Since(start), mostRest))
		if compared {
			rest = gatherTime
		}
		if !pause(ctx, rest) {
			return ctx.Err()
		}
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-changed:
				waiting = false
			case <-s.kick:
				waiting, force = false, true
			case <-verify.C:
				waiting, force = false, true
			case <-again:
				waiting, force = false, true
			case <-settled:
				waiting, force, settled = false, true, nil
			case <-drift:
				if settled == nil {
					settled = time.After(settleTime)
				}
			}
		}
	}
}

// pause waits, and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// again makes Run compare everything with the kernel soon.
func (s *Segment) again() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// picture is what one sync works on: what is here, what follows from it, and
// how much is known.
type picture struct {
	place
	routes []Route
	known  topology.Knowledge
	peers  map[string][]carrier.Peer
	// revision is that of the topology that it was made from.
	revision int64
}

// look works out the routes from what is known at this moment. mu is not held
// meanwhile, as the kernel can be slow to list things while links come and go.
func (s *Segment) look() picture {
	p := picture{place: place{host: s.Host}}
	s.mu.Lock()
	p.networks = slices.Collect(maps.Values(s.networks))
	p.endpoints = slices.Collect(maps.Values(s.endpoints))
	p.machines = maps.Clone(s.machines)
	s.mu.Unlock()
	s.Topology.Read(func(t *topology.Topology, k topology.Knowledge) {
		p.known, p.revision = k, t.Revision
		p.routes = plan(p.place, t)
		p.peers = peersOf(p.routes, t)
	})
	return p
}

// sync brings the kernel's routes to the plan. Without force it changes what
// is different from the plan that was applied last, but for local endpoints,
// which Attach and Detach see to themselves; with force it compares all with
// the kernel.
func (s *Segment) sync(force bool) error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	p := s.look()
	if p.known == topology.Unknown {
		// What an earlier run left in the kernel is better than nothing.
		return nil
	}
	beyond := slices.DeleteFunc(slices.Clone(p.routes), func(r Route) bool { return r.Target == ToLink })
	if !force && slices.Equal(beyond, s.applied) && reflect.DeepEqual(p.peers, s.peers) {
		s.mark.Set(p.revision)
		return nil
	}
	var err error
	if force || s.applied == nil || !sameWays(p.peers, s.peers) {
		err = s.whole(p)
	} else {
		err = s.changes(p, beyond)
	}
	if err != nil {
		s.applied = nil
		return err
	}
	s.applied, s.peers = beyond, p.peers
	s.mark.Set(p.revision)
	return nil
}

// Applied waits until the host's routes are those of an etcd revision, or ctx
// ends.
func (s *Segment) Applied(ctx context.Context, revision int64) error {
	return s.mark.Wait(ctx, revision)
}

// whole compares everything with the kernel.
func (s *Segment) whole(p picture) error {
	var errs []error
	for _, n := range p.networks {
		for _, sub := range n.Subnets() {
			errs = append(errs, s.addGateway(sub.Gateway))
		}
	}
	for _, as := range p.machines {
		for _, a := range as {
			errs = append(errs, s.addMachine(a))
		}
	}
	want, err := s.resolve(p)
	errs = append(errs, err)
	if want != nil {
		errs = append(errs, s.applyRoutes(want, s.keep(p)))
	}
	return errors.Join(errs...)
}

// changes applies what is different from the last plan, without asking the
// kernel what it has.
func (s *Segment) changes(p picture, beyond []Route) error {
	hops, err := s.hops(p.peers)
	errs := []error{err}
	old := map[netip.Prefix]Route{}
	for _, r := range s.applied {
		old[r.Dst] = r
	}
	for _, r := range beyond {
		if o, ok := old[r.Dst]; !ok || o != r {
			if k := beyondRoute(r, hops); k != nil && !s.local(r.Dst) {
				errs = append(errs, s.replace(k))
			}
		}
		delete(old, r.Dst)
	}
	for dst := range old {
		if !s.local(dst) {
			errs = append(errs, s.remove(&netlink.Route{Dst: ipNet(dst), Protocol: Protocol, Priority: Metric, Table: mainTable}))
		}
	}
	return errors.Join(errs...)
}

// peersOf lists, for each carrier, the hosts that routes lead to by it.
func peersOf(routes []Route, t *topology.Topology) map[string][]carrier.Peer {
	behind := map[way][]netip.Prefix{}
	for _, r := range routes {
		if r.Target == ToHost {
			w := way{r.Carrier, r.Host}
			behind[w] = append(behind[w], r.Dst)
		}
	}
	peers := map[string][]carrier.Peer{}
	for w, prefixes := range behind {
		if p, err := carrier.PeerOf(t.Underlays[w.host], prefixes); err == nil {
			p.Host = w.host
			peers[w.carrier] = append(peers[w.carrier], p)
		}
	}
	for _, ps := range peers {
		slices.SortFunc(ps, func(a, b carrier.Peer) int { return compareText(a.Host, b.Host) })
	}
	return peers
}

// sameWays reports whether the same hosts are reached in the same way,
// whatever lies behind them.
func sameWays(a, b map[string][]carrier.Peer) bool {
	return reflect.DeepEqual(bare(a), bare(b))
}

func bare(peers map[string][]carrier.Peer) map[way]carrier.Peer {
	all := map[way]carrier.Peer{}
	for name, ps := range peers {
		for _, p := range ps {
			p.Prefixes = nil
			all[way{name, p.Host}] = p
		}
	}
	return all
}

// keep tells which of the kernel's routes that are not wanted are left as they
// are: those that are planned but have no way at present, as the reason may be
// a passing one; those of endpoints attached since; and while etcd has not
// been heard of, all that are within the networks here, as an earlier run may
// have known more.
func (s *Segment) keep(p picture) func(netip.Prefix) bool {
	in := map[netip.Prefix]bool{}
	for _, r := range p.routes {
		in[r.Dst] = true
	}
	return func(dst netip.Prefix) bool {
		if in[dst] || s.local(dst) {
			return true
		}
		return p.known != topology.Followed && slices.ContainsFunc(p.networks, func(n segment.Network) bool {
			return slices.ContainsFunc(n.Subnets(), func(sub segment.Subnet) bool {
				return sub.Prefix.Contains(dst.Addr()) && sub.Prefix.Bits() < dst.Bits()
			})
		})
	}
}

// local reports whether a destination is an endpoint's that is attached now.
func (s *Segment) local(dst netip.Prefix) bool {
	if !dst.IsSingleIP() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.byAddress[dst.Addr()]) > 0
}
