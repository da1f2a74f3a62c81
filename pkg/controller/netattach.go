package controller

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// lookAgain is how often something outside the cache is looked at while it is
// waited for.
const lookAgain = 100 * time.Millisecond

// AttachHost implements [api.Backend]: the machine's own network plugin does
// what the record says, and publishes the address that it took.
func (c *Controller) AttachHost(ctx context.Context, network, host string) (api.Attachment, error) {
	var none api.Attachment
	fence, _ := c.lead.get()
	if fence == nil {
		return none, unavailable("this controller no longer leads: try again")
	}
	n, id, err := c.networkAndHost(ctx, network, host)
	if err != nil {
		return none, err
	}
	k := c.store.Keys
	key := k.Attached(n.ID, id)
	if n.Driver != "" {
		return none, invalid("network " + title(n) + " is carried by the driver " + n.Driver + ": a machine can be put only on networks of clocker's own driver")
	}
	_, err = c.store.Txn(fence...).Exists(k.Network(n.ID)).Exists(k.HostSpec(id)).Absent(key).
		Put(key, record.Attached{Host: id, Network: n.ID, Since: c.now()}).Commit(ctx)
	if errors.Is(err, store.ErrConflict) {
		// On it already, or something went meanwhile.
		if _, err = store.Get[record.Attached](ctx, c.store, key); errors.Is(err, store.ErrNotFound) {
			return none, conflict("network %s or host %s was removed meanwhile", network, host)
		}
	}
	if err != nil {
		return none, err
	}
	a := api.Attachment{Network: title(n), Host: c.hostName(id)}
	addresses, err := c.machineAddresses(ctx, n.ID, id)
	for end := c.now().Add(api.SettleTime); err == nil && len(addresses) == 0 && c.isUp(id) && c.now().Before(end); {
		if err := pause(ctx, lookAgain); err != nil {
			return a, err
		}
		addresses, err = c.machineAddresses(ctx, n.ID, id)
	}
	if err != nil {
		return a, err
	}
	a.Addresses = addresses
	if len(addresses) == 0 {
		a.Reason = "host " + a.Host + " has not followed within " + api.SettleTime.String() + ": docker clocker doctor --host " + a.Host + " says more"
		if !c.isUp(id) {
			a.Reason = "host " + a.Host + " does not answer; it follows when it is back"
		}
	}
	c.emit(ctx, "network", "attach", a.Network, "host "+a.Host)
	return a, nil
}

// DetachHost implements [api.Backend].
func (c *Controller) DetachHost(ctx context.Context, network, host string) error {
	fence, _ := c.lead.get()
	if fence == nil {
		return unavailable("this controller no longer leads: try again")
	}
	n, id, err := c.networkAndHost(ctx, network, host)
	if err != nil {
		return err
	}
	key := c.store.Keys.Attached(n.ID, id)
	_, err = c.store.Txn(fence...).Exists(key).Delete(key).Commit(ctx)
	if errors.Is(err, store.ErrConflict) {
		return notFound("host %s is not on network %s", c.hostName(id), title(n))
	}
	if err != nil {
		return err
	}
	for end := c.now().Add(api.SettleTime); c.isUp(id) && c.now().Before(end); {
		addresses, err := c.machineAddresses(ctx, n.ID, id)
		if err != nil || len(addresses) == 0 {
			return err
		}
		if err := pause(ctx, lookAgain); err != nil {
			return err
		}
	}
	c.emit(ctx, "network", "detach", title(n), "host "+c.hostName(id))
	return nil
}

func (c *Controller) networkAndHost(ctx context.Context, network, host string) (record.Network, string, error) {
	s, err := c.netState(ctx)
	if err != nil {
		return record.Network{}, "", err
	}
	n, err := s.find(network)
	if err != nil {
		return n, "", err
	}
	id := c.findHost(host)
	if id == "" {
		return n, "", notFound("there is no host %s (docker clocker host ls shows them)", host)
	}
	return n, id, nil
}

// machineAddresses are the addresses that a host itself has on a network.
func (c *Controller) machineAddresses(ctx context.Context, network, host string) ([]string, error) {
	prefix := c.store.Keys.Endpoint(network, "")
	items, _, err := store.List[record.Endpoint](ctx, c.store, prefix)
	if err != nil {
		return nil, err
	}
	var all []netip.Addr
	for _, it := range items {
		if a, err := netip.ParseAddr(it.Key[len(prefix):]); err == nil && it.Value.Machine && it.Value.Host == host {
			all = append(all, a)
		}
	}
	slices.SortFunc(all, func(a, b netip.Addr) int { return cmp.Or(cmp.Compare(a.BitLen(), b.BitLen()), a.Compare(b)) })
	var out []string
	for _, a := range all {
		out = append(out, a.String())
	}
	return out, nil
}

// isUp reports whether a host's agent is heard of.
func (c *Controller) isUp(id string) bool {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	_, up := c.cache.leases[id]
	return up
}

// pause waits, or returns why ctx has ended.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
