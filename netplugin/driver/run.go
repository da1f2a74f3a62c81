package driver

import (
	"context"
	"net/netip"
	"slices"
	"time"

	addresses "clocker.io/clocker/ipam/driver"
	"clocker.io/clocker/netplugin/policy"
	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/pkg/record"
)

const (
	// reconcileEvery is how often the driver looks for what engines forgot to
	// say.
	reconcileEvery = 20 * time.Second
	// goneFor is how long a link must have been missing before its endpoint
	// counts as gone.
	goneFor = 60 * time.Second
	// gatherTime is the least time between two looks at the fleet.
	gatherTime = 5 * time.Millisecond
)

// Kinds are what of the topology the driver looks at.
var Kinds = []topology.Kind{
	topology.Pool, topology.Network, topology.Endpoint, topology.Underlay, topology.Attached, topology.Published, topology.Rule,
}

// Run finishes what calls left to be done, until ctx ends: it tells etcd of
// removed networks, keeps the filter's idea of the fleet's address space, and
// drops endpoints that the engine has forgotten. changed signals a change of
// the topology.
func (d *Driver) Run(ctx context.Context, changed <-chan struct{}) error {
	tick := time.NewTicker(reconcileEvery)
	defer tick.Stop()
	for {
		start := time.Now()
		d.readFleet()
		d.syncMachines()
		d.settleRemoved()
		// Many changes cost few looks, and never all of a processor.
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(max(gatherTime, 2*time.Since(start))):
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-d.kick:
		case <-tick.C:
			d.reconcile()
		}
	}
}

// again makes Run look soon.
func (d *Driver) again() {
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// readFleet tells the filter what it must know of the fleet.
func (d *Driver) readFleet() {
	var local []record.Network
	d.mu.Lock()
	for _, n := range d.networks {
		if !n.Removed {
			local = append(local, n.Network)
		}
	}
	machines := d.filterMachines()
	d.mu.Unlock()
	var f policy.Fleet
	d.Topology.Read(func(t *topology.Topology, _ topology.Knowledge) { f = fleetOf(t, local, machines) })
	if err := d.Filter.SetFleet(f); err != nil {
		d.Log.Error("fleet not set in the filter", "error", err)
	}
}

// settleRemoved tells etcd of networks that the engine has deleted, and then
// forgets them.
func (d *Driver) settleRemoved() {
	d.mu.Lock()
	var removed []networkState
	for _, n := range d.networks {
		if n.Removed {
			removed = append(removed, n)
		}
	}
	d.mu.Unlock()
	for _, n := range removed {
		if err := d.settle(n); err != nil {
			d.Log.Warn("removed network not settled, trying again", "network", n.Network.ID, "error", err)
		}
	}
}

func (d *Driver) settle(n networkState) error {
	if n.Foreign {
		// Of other networks the engine tells the IPAM driver itself.
		if err := d.Addresses.ReleaseNetwork(n.Network.ID); err != nil {
			return err
		}
	}
	if err := d.files.deleteNetwork(n.ID); err != nil {
		return err
	}
	d.mu.Lock()
	delete(d.networks, n.ID)
	d.mu.Unlock()
	return nil
}

// reconcile drops endpoints whose links have been missing for a while, as
// their containers ended while the engine could not tell, and lets the IPAM
// driver compare what is held with what is in use.
func (d *Driver) reconcile() {
	gone, err := d.vanished()
	if err != nil {
		d.Log.Warn("links not compared", "error", err)
		return
	}
	now := d.Now()
	missing := map[string]time.Time{}
	for _, e := range gone {
		since, ok := d.seen[e.ID]
		if !ok {
			since = now
		}
		if now.Sub(since) < goneFor {
			missing[e.ID] = since
			continue
		}
		d.Log.Info("dropping an endpoint whose link is gone", "endpoint", e.ID, "addresses", e.Addresses())
		unlock := d.exclusive(e.ID)
		d.tearDown(e.ID)
		unlock()
	}
	d.seen = missing
	report, err := d.Addresses.Reconcile(d.live(missing))
	if err != nil {
		d.Log.Warn("addresses not compared", "error", err)
	}
	for _, a := range report.Released {
		d.Log.Info("address released that nobody has", "network", a.Network, "address", a.Addr)
	}
	for _, a := range report.Unknown {
		d.Log.Warn("address in use that this host did not hand out", "network", a.Network, "address", a.Addr)
	}
}

// live is what is in use on this host.
func (d *Driver) live(gone map[string]time.Time) addresses.Live {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := addresses.Live{Networks: map[string]int{}, Addresses: map[string][]netip.Addr{}}
	for _, n := range d.networks {
		if !n.Removed || n.Foreign {
			l.Networks[n.Network.ID]++
		}
	}
	for id, e := range d.endpoints {
		if _, ok := gone[id]; !ok {
			l.Addresses[e.Network.ID] = append(l.Addresses[e.Network.ID], e.Addresses()...)
		}
	}
	for id, m := range d.machines {
		l.Addresses[id] = append(l.Addresses[id], m.addrs()...)
	}
	return l
}

// InUse reports whether a container on this host has the address: there is an
// endpoint that has not been left, and its link is there.
func (d *Driver) InUse(network string, a netip.Addr) bool {
	d.mu.Lock()
	if d.machineHas(network, a) {
		d.mu.Unlock()
		return true
	}
	var id string
	for _, e := range d.endpoints {
		if e.Network.ID == network && e.has(a) && !e.Left {
			id = e.ID
		}
	}
	d.mu.Unlock()
	if id == "" {
		return false
	}
	gone, err := d.vanished()
	return err != nil || !slices.ContainsFunc(gone, func(e segment.Endpoint) bool { return e.ID == id })
}
