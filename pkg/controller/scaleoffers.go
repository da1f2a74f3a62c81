package controller

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"clocker.io/clocker/pkg/headroom"
	"clocker.io/clocker/pkg/location"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/placement"
	"clocker.io/clocker/pkg/record"
)

// expected is what a host that is not there yet will be like.
type expected struct {
	ports    map[string]string
	capacity model.Amounts
}

// host is a machine as placement will see it once it is a host. What nobody
// said about it is taken to be as on the fleet's other hosts.
func (e expected) host(id, name string, o location.Offer) placement.Host {
	h := placement.Host{
		ID: id, Name: name, Hostname: name, Up: true, Labels: o.Labels, Capacity: o.Capacity, Platform: o.Platform,
		Ports: maps.Clone(e.ports),
	}
	if h.Capacity.NanoCPUs == 0 {
		h.Capacity.NanoCPUs = e.capacity.NanoCPUs
	}
	if h.Capacity.MemoryBytes == 0 {
		h.Capacity.MemoryBytes = e.capacity.MemoryBytes
	}
	if h.Platform == "" { // hosts run the controller's own program
		h.Platform = "linux/" + runtime.GOARCH
	}
	return h
}

// boundless stands for a capacity about which nothing at all is known.
const boundless = 1 << 50

func meanCapacity(hosts []headroom.Host) model.Amounts {
	var sum model.Amounts
	n := int64(0)
	for _, h := range hosts {
		if h.Capacity.NanoCPUs > 0 && h.Capacity.MemoryBytes > 0 {
			sum.NanoCPUs += h.Capacity.NanoCPUs
			sum.MemoryBytes += h.Capacity.MemoryBytes
			n++
		}
	}
	if n == 0 {
		return model.Amounts{NanoCPUs: boundless, MemoryBytes: boundless}
	}
	return model.Amounts{NanoCPUs: sum.NanoCPUs / n, MemoryBytes: sum.MemoryBytes / n}
}

// publishedPorts are those that every host answers on; the cache is locked.
func (c *cache) publishedPorts() map[string]string {
	out := map[string]string{}
	for _, q := range c.published {
		key := placement.PortKey(model.Port{Protocol: q.Protocol, HostIP: q.HostIP, HostPort: q.HostPort})
		out[key] = q.App + "/" + q.Service + ", which is published on every host"
	}
	return out
}

// free lists what providers could give, cheapest first, engines that wait
// before machines that may lack one; the cache is locked.
func (b *basis) free(c *cache, providers map[string]location.Provider, e expected) {
	taken := map[string]bool{}
	failed := map[string][]record.Machine{}
	for _, it := range b.machines {
		m := it.Value
		if m.Handle != "" {
			taken[m.Handle] = true
		}
		if m.State == record.MachineFailed || m.Attempts > 0 {
			failed[m.Provider] = append(failed[m.Provider], m)
		}
	}
	for _, h := range c.hosts {
		taken[h.Value.Endpoint] = true
	}
	var all []offer
	var none []string
	for _, name := range slices.Sorted(maps.Keys(c.providers)) {
		it := c.providers[name]
		p := providers[name]
		if p == nil {
			none = append(none, fmt.Sprintf("provider %s is of kind %s, which this controller does not know", name, it.Value.Kind))
			continue
		}
		if until := location.Rest(failed[name], b.snapshot.Now); !until.IsZero() && !location.Lasting(it.Value.Kind) {
			b.restsUntil = earlier(b.restsUntil, until)
			none = append(none, fmt.Sprintf("provider %s rests until %s, as machines of it failed", name, until.UTC().Format(time.TimeOnly)+" UTC"))
			continue
		}
		offers, left := p.Offers(), 0
		for _, o := range offers {
			if o.Single && taken[o.ID] {
				continue
			}
			left++
			all = append(all, offer{o, it})
		}
		if left == 0 {
			none = append(none, fmt.Sprintf("provider %s: all of its %d machines are in use or have failed", name, len(offers)))
		}
	}
	b.snapshot.NoFree = strings.Join(none, "; ")
	if len(c.providers) == 0 {
		b.snapshot.NoFree = "the fleet has no provider of hosts (docker clocker provider add)"
	}
	slices.SortStableFunc(all, func(x, y offer) int {
		if px, py := x.Price.Amount, y.Price.Amount; px != py {
			if px < py {
				return -1
			}
			return 1
		}
		return strings.Compare(y.provider.Value.Kind, x.provider.Value.Kind) // standby, byon
	})
	for _, o := range all {
		n := manyOffers
		if o.Single {
			n = 1
		}
		for i := range n {
			id := fmt.Sprintf("free:%s/%s/%d", o.provider.Value.Name, o.ID, i)
			name := o.Name
			if name == "" {
				name = o.ID
			}
			b.offers[id] = o
			b.snapshot.Free = append(b.snapshot.Free, headroom.Machine{ID: id, Host: e.host(id, name, o.Offer)})
		}
	}
}
