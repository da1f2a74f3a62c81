package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

func mapKeys[K comparable, V any](m map[K]V) iter.Seq[K] { return maps.Keys(m) }

// exhaustedEvery is how often an address is looked for again when none was left.
const exhaustedEvery = 30 * time.Second

// keepServices gives services their addresses, and every host's ports their
// services, as applications come, change and go, until ctx ends. What fails is
// tried again, and so are services that there was no address for: addresses
// may have become free.
func (c *Controller) keepServices(ctx context.Context) {
	const retry = time.Second
	var had wantedNet
	known := false
	told := map[string]bool{}
	again := time.Time{} // when to try again for those without an address
	changed := c.cache.wakes.subscribe(topicApps, topicNetworks)
	defer changed.end()
	for {
		want := c.wantedNet()
		wait := (<-chan time.Time)(nil)
		if !known || !want.equal(had) {
			without, err := c.syncServices(ctx, want, told)
			if err == nil {
				err = c.syncPublished(ctx, want.ports)
			}
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				if !errors.Is(err, store.ErrConflict) {
					c.log.Warn("addresses of services cannot be written, trying again", "error", err)
				}
				wait = time.After(retry)
			case without > 0:
				had, known, again = want, true, time.Now().Add(cmp.Or(c.exhaustedEvery, exhaustedEvery))
			default:
				had, known, again = want, true, time.Time{}
			}
		}
		if wait == nil && !again.IsZero() {
			wait = time.After(time.Until(again))
		}
		select {
		case <-ctx.Done():
			return
		case <-changed.C:
		case <-wait:
			known = false
		}
	}
}

// wantedNet is what applications want of networks.
type wantedNet struct {
	services []serviceIn
	ports    []publishedPort
	// networks have services now or may have had.
	networks map[string]record.Network
}

func (w wantedNet) equal(o wantedNet) bool {
	return slices.Equal(w.services, o.services) && slices.Equal(w.ports, o.ports)
}

// wantedNet looks at the releases that run or are being started.
func (c *Controller) wantedNet() wantedNet {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	w := wantedNet{networks: maps.Clone(c.cache.networks)}
	var running, serving []*record.Release
	for _, a := range c.cache.apps {
		if a.state.Value.Desired == record.DesiredRemoved {
			continue
		}
		current, pending := a.releases[a.state.Value.Release], a.releases[a.state.Value.Pending]
		if pending != nil && pending.release != nil {
			running = append(running, pending.release)
			if pending.status.Value.Phase == record.ReleaseStarting {
				// Its ports take the place of the former ones.
				serving = append(serving, pending.release)
				current = nil
			}
		}
		if current != nil && current.release != nil {
			running = append(running, current.release)
			serving = append(serving, current.release)
		}
	}
	w.services, w.ports = wantedServices(running, w.networks), wantedPorts(serving, w.networks)
	return w
}

// syncServices makes the addresses of services in etcd what is wanted. Each
// network is a transaction of its own, which holds only while this controller
// leads and nobody has taken a block that it claims. without counts the
// services that no address is left for.
func (c *Controller) syncServices(ctx context.Context, want wantedNet, told map[string]bool) (without int, err error) {
	fence, _ := c.lead.get()
	if fence == nil {
		return 0, store.ErrConflict
	}
	all, _, err := store.List[record.Service](ctx, c.store, c.store.Keys.Services())
	if err != nil {
		return 0, err
	}
	have := map[string]map[string]record.Service{}
	for _, it := range all {
		network, address := path.Base(path.Dir(it.Key)), path.Base(it.Key)
		if have[network] == nil {
			have[network] = map[string]record.Service{}
		}
		have[network][address] = it.Value
	}
	wanted := map[string][]serviceIn{}
	for _, s := range want.services {
		wanted[s.network] = append(wanted[s.network], s)
	}
	var errs []error
	for id, n := range want.networks {
		if len(have[id])+len(wanted[id]) == 0 {
			continue
		}
		left, err := c.syncNetwork(ctx, n, have[id], wanted[id], fence, told)
		without += left
		errs = append(errs, err)
	}
	return without, errors.Join(errs...)
}

// syncNetwork is [Controller.syncServices] for one network.
func (c *Controller) syncNetwork(ctx context.Context, n record.Network, have map[string]record.Service, want []serviceIn, fence fence, told map[string]bool) (without int, err error) {
	h := holdings{network: n.ID, services: have, blocks: map[netip.Prefix]bool{}}
	if h.layouts, err = registry.Layouts(n); err != nil {
		return 0, err
	}
	k := c.store.Keys
	blocks, _, err := store.List[record.Block](ctx, c.store, k.NetworkBlocks(n.ID))
	if err != nil {
		return 0, err
	}
	revisions := map[netip.Prefix]int64{}
	for _, it := range blocks {
		b, err := netip.ParsePrefix(strings.Replace(path.Base(it.Key), "_", "/", 1))
		if err != nil {
			return 0, fmt.Errorf("read key %s: %w", it.Key, err)
		}
		h.blocks[b], revisions[b] = it.Value.State == record.BlockServices, it.Revision
	}
	p := planAddresses(h, want)
	for _, s := range p.add {
		delete(told, n.ID+"/"+s.App+"/"+s.Service)
	}
	for _, s := range p.without {
		if key := s.network + "/" + s.app + "/" + s.service; !told[key] {
			told[key] = true
			c.emit(ctx, "network", "exhausted", registry.Title(n),
				fmt.Sprintf("no address is left for service %s of application %s: its name answers with its replicas' addresses", s.service, s.app))
		}
	}
	guard := func() *store.Txn { return c.store.Txn(fence...).Exists(k.Network(n.ID)) }
	t := guard()
	for _, key := range p.remove {
		t.Delete(k.Service(n.ID, key))
	}
	for _, b := range p.free {
		key := k.Block(n.ID, b.String())
		t.Unchanged(key, revisions[b]).Delete(key)
	}
	for _, b := range p.claim {
		key := k.Block(n.ID, b.String())
		t.Absent(key).Put(key, record.Block{State: record.BlockServices, Since: c.now()})
	}
	for _, address := range slices.Sorted(maps.Keys(p.add)) {
		if t.Full() {
			if _, err := t.Commit(ctx); err != nil {
				return 0, err
			}
			t = guard()
		}
		key := k.Service(n.ID, address)
		if _, replaced := have[address]; !replaced {
			t.Absent(key)
		}
		t.Put(key, p.add[address])
	}
	if t.Len() == 0 {
		return len(p.without), nil
	}
	_, err = t.Commit(ctx)
	return len(p.without), err
}
