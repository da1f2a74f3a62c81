package placement

import "math/bits"

// buckets keep the hosts by how many containers they have, and in each by rank:
// the order of those on which nothing of an application runs. They are right
// while the fleet is sorted.
type buckets []set

// mostBuckets bounds them: the last one has all hosts from there on.
const mostBuckets = 4096

func (b *buckets) of(containers int32, hosts int) set {
	i := int(min(max(containers, 0), mostBuckets-1))
	for len(*b) <= i {
		*b = append(*b, nil)
	}
	if (*b)[i] == nil {
		(*b)[i] = newSet(hosts)
	}
	return (*b)[i]
}

// refill puts all hosts in anew.
func (f *Fleet) refill() {
	f.buckets = f.buckets[:0]
	for r, h := range f.order {
		f.buckets.of(f.loads[h].containers, len(f.order)).put(int32(r))
	}
}

// rebucket moves a host whose containers have changed.
func (f *Fleet) rebucket(h, was int32) {
	if now := f.loads[h].containers; f.sorted && now != was {
		r := int32(f.rank[h])
		f.buckets.of(was, len(f.order)).drop(r)
		f.buckets.of(now, len(f.order)).put(r)
	}
}

// fresh is the best host of those on which nothing of the application runs, in
// the order of no chain; -1 when there is none. As any of them comes before
// those on which something does, it is then the best of all. It gives up, too,
// once it has gone further in all than the heaps would have cost.
func (c *class) fresh() int32 {
	f := c.fleet
	app := &f.apps.all[c.ref.app]
	for i, b := range f.buckets {
		if i == mostBuckets-1 {
			return -1
		}
		for j, w := range b {
			for ; w != 0; w &= w - 1 {
				h := f.order[j<<6+bits.TrailingZeros64(w)]
				if c.steps++; c.steps > 2*len(f.order) {
					return -1
				}
				if app.get(h) == 0 && c.open(h) {
					return h
				}
			}
		}
	}
	return -1
}
