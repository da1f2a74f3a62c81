package placement

import "clocker.io/clocker/pkg/model"

// Standing is what a host has and keeps for replicas.
type Standing struct {
	// Capacity is what it may give in all, Used what its replicas reserve.
	Capacity, Used model.Amounts
	// Replicas are those of the fleet on it.
	Replicas int
}

// Standing of a host, by id; the zero value for one that is not known.
func (f *Fleet) Standing(host string) Standing {
	h, known := f.byID[host]
	if !known {
		return Standing{}
	}
	m, keep := &f.machines[h], &f.policy.Reserve
	return Standing{
		Capacity: model.Amounts{
			NanoCPUs: m.Capacity.NanoCPUs - keep.NanoCPUs, MemoryBytes: m.Capacity.MemoryBytes - keep.MemoryBytes, PIDs: m.Capacity.PIDs - keep.PIDs,
		},
		Used: m.used, Replicas: len(m.tasks),
	}
}

// ReplicasOf is how many replicas of a service a host has.
func (f *Fleet) ReplicasOf(app, service, host string) int {
	h, known := f.byID[host]
	id, there := f.services.ids[app+"/"+service]
	if !known || !there {
		return 0
	}
	return int(f.services.all[id].get(h))
}

// HostIDs are the hosts' ids, by name.
func (f *Fleet) HostIDs() []string {
	f.sort()
	out := make([]string, len(f.order))
	for i, h := range f.order {
		out[i] = f.machines[h].ID
	}
	return out
}

// PlaceAmong is Place of one request on the best of the hosts that pass and are
// good, by their places in [Fleet.HostIDs]. A decision without a host has no
// refusals.
func (f *Fleet) PlaceAmong(r Request, good []bool) Decision {
	f.begin()
	defer f.end()
	d := Decision{Request: r}
	if len(f.order) == 0 {
		return d
	}
	c := f.classOf(&r)
	var list []int32
	for _, h := range c.walk(nil) {
		if good[f.rank[h]] {
			list = append(list, h)
		}
	}
	if len(list) == 0 {
		return d
	}
	h := c.first(list)
	d.Host = f.machines[h].ID
	d.Reason = c.because(h, &r)
	f.reserve(c, h, &r, &d)
	return d
}
