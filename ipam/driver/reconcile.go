package driver

import (
	"net/netip"
	"time"
)

// Live is what an engine and its kernel were seen to use.
type Live struct {
	// Networks counts the Docker networks on each of the fleet's networks,
	// by its id; nil means that nobody looked.
	Networks map[string]int
	// Addresses are those that endpoints have, by network id; nil means
	// that nobody looked.
	Addresses map[string][]netip.Addr
}

// Address is an address of a network.
type Address struct {
	Network string
	Addr    netip.Addr
}

// Report is what a reconciliation did and found.
type Report struct {
	// Released were held although nobody has them.
	Released []Address
	// Unknown are in use although this host did not hand them out.
	Unknown []Address
}

// suspect is an address that nobody was seen to use; without an address, a
// use of the network.
type suspect = Address

// Reconcile compares what is held with what is live, because engines do not
// always say when they are done. An address is released when it was held, and
// unused, in two observations at least the configured grace apart.
func (d *Driver) Reconcile(live Live) (Report, error) {
	for id, docker := range live.Networks {
		if docker == 0 {
			continue
		}
		if err := d.usedAtAll(id); err != nil {
			d.log.Warn("network in use is not known", "network", id, "error", err)
		}
	}
	if live.Addresses != nil {
		if err := d.rebuild(live); err != nil {
			d.log.Warn("blocks of a lost journal are not in use again", "error", err)
		}
	}
	d.mu.Lock()
	now := d.cfg.Now()
	var report Report
	var rs []entry
	seen := map[suspect]bool{}
	for id, n := range d.networks {
		if n.elsewhere() {
			continue // nobody could see its endpoints
		}
		if live.Networks != nil {
			rs = append(rs, d.reconcileUses(n, live.Networks[id], now, seen)...)
		}
		if live.Addresses == nil {
			continue
		}
		used := map[netip.Addr]bool{}
		for _, a := range live.Addresses[id] {
			used[a] = true
			if n.byEngine(d.cfg.Host, a) {
				continue
			}
			if _, held := n.holder(a); !held {
				report.Unknown = append(report.Unknown, Address{id, a})
			}
		}
		for _, a := range n.held() {
			h, _ := n.holder(a)
			if s := (suspect{id, a}); !used[a] && d.convict(s, h.Since, now, seen) {
				rs = append(rs, d.release(n, a)...)
				report.Released = append(report.Released, s)
			}
		}
	}
	for s := range d.suspects {
		if !seen[s] {
			delete(d.suspects, s)
		}
	}
	commit := d.append(rs...)
	d.mu.Unlock()
	d.kick()
	return report, commit.Wait()
}

// usedAtAll makes a network known that a Docker network is on, as used.
func (d *Driver) usedAtAll(id string) error {
	n, err := d.known(id)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if n.uses() == 0 {
		d.append(d.setUses(n, n.halves()[0], 1)...)
		d.kick()
	}
	return nil
}

// reconcileUses corrects how often the host uses a network: more often at
// once, less often after the grace. mu is held.
func (d *Driver) reconcileUses(n *network, live int, now time.Time, seen map[suspect]bool) []entry {
	if live > n.uses() {
		return d.setUses(n, n.halves()[0], live)
	}
	s := suspect{Network: n.id}
	if live == n.uses() || !d.convict(s, time.Time{}, now, seen) {
		return nil
	}
	var rs []entry
	for _, f := range n.halves() {
		if f.uses > live {
			rs = append(rs, d.setUses(n, f, live)...)
		}
	}
	return rs
}

// convict reports whether what is held since then has been unused for long
// enough; mu is held.
func (d *Driver) convict(s suspect, since, now time.Time, seen map[suspect]bool) bool {
	first, ok := d.suspects[s]
	if !ok || since.After(first) {
		// Not seen unused before, or given anew since.
		first = now
		d.suspects[s] = now
	}
	seen[s] = true
	return now.Sub(first) >= d.cfg.Grace
}
