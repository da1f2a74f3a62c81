package driver

import (
	"net/netip"
	"time"

	"clocker.io/clocker/ipam"
)

// looks is how often it is looked, in the time that a doubt takes, whether an
// address has an endpoint.
const looks = 10

// abandoned reports whether an address that is held has no endpoint, for long
// enough that its holder is no more: an engine asks for an address a moment
// before it makes the endpoint, and gives it back a moment after it has deleted
// the endpoint. The container that holds it may ask again at once. A holder that
// has changed meanwhile counts as none: the caller looks again.
//
// It looks many times, as what stops this process stops its clock for one wait
// only. It is called without mu, and waits.
func (d *Driver) abandoned(n *network, a netip.Addr, holder ipam.Held, asks string) bool {
	if d.stillInUse(n, a, holder.Name, asks) {
		return false
	}
	if holder.Name != "" && holder.Name == asks {
		return true
	}
	for range looks {
		select {
		case <-d.ctx.Done():
			return false
		case <-time.After(d.cfg.Doubt / looks):
		}
		d.mu.Lock()
		now, held := n.holder(a)
		d.mu.Unlock()
		if !held || now != holder {
			return true
		}
		if d.stillInUse(n, a, holder.Name, asks) {
			return false
		}
	}
	return true
}

// doubt looks aside whether an address that another host asks for is
// abandoned, and answers the questions again when that is known. It reports
// whether it is; mu is held.
func (d *Driver) doubt(n *network, a netip.Addr, holder ipam.Held, asks string) bool {
	if gone, ok := n.doubts[a]; ok && gone != nil && *gone == holder {
		delete(n.doubts, a)
		return true
	} else if ok && gone == nil {
		return false // Somebody is looking.
	}
	n.doubts[a] = nil
	d.background(func() {
		gone := d.abandoned(n, a, holder, asks)
		d.mu.Lock()
		delete(n.doubts, a)
		if gone {
			n.doubts[a] = &holder
		}
		d.asked = true
		d.mu.Unlock()
		d.kick()
	})
	return false
}

// mayRelease reports whether a release is meant for who holds an address now.
// An engine says it again when it missed the answer, and by then somebody else
// may have the address: who has an endpoint keeps it, and who has none yet gets
// the time to make it. It is called without mu, and may wait.
func (d *Driver) mayRelease(n *network, a netip.Addr) bool {
	d.mu.Lock()
	holder, held := n.holder(a)
	_, noted := n.notes[a]
	young := !noted && d.cfg.Now().Sub(holder.Since).Abs() < fresh
	unseen := d.cfg.InUse == nil || n.elsewhere()
	d.mu.Unlock()
	switch {
	case !held || unseen:
		return held
	case d.cfg.InUse(n.id, a):
		return false
	case young && !d.abandoned(n, a, holder, ""):
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now, held := n.holder(a)
	return held && now == holder
}

// fresh is how long after an address was given its endpoint may be still to
// come.
const fresh = 10 * time.Second
