package plan

import (
	"fmt"
	"sort"
	"time"

	"clocker.io/clocker/pkg/record"
)

// Waits reports whether a container's replica waits for its host when that is
// lost: it writes to data, and nothing stops it there for certain.
func Waits(c record.ContainerSpec) bool { return c.Fenced && c.Fence == 0 }

// exclusive reports whether two containers of one replica must never run at the
// same time, not even when one is cut off.
func exclusive(c record.ContainerSpec) bool { return c.Shared || c.Fence > 0 }

// How much longer than a fence the leader waits: clocks of two machines may
// differ by so much, and killing takes its time.
const (
	fenceDrift = 20 // a twentieth, 5 %
	fenceGrace = 2 * time.Second
)

// FenceTime is how long a host must be gone until what it ran with a fence has
// certainly stopped there.
func FenceTime(fence time.Duration) time.Duration { return fence + fence/fenceDrift + fenceGrace }

// expired are reports of tasks that nobody is asked for any more, whose fence
// has certainly stopped them: their successors may start.
func (n *next) expired(keep []record.Assignment) []record.Observed {
	assigned := map[string]bool{}
	for _, a := range keep {
		assigned[a.Task] = true
	}
	var out []record.Observed
	for _, o := range n.Observed {
		gone, counts := n.Gone[o.Host]
		if o.Fence == 0 || !counts || assigned[o.Task] || n.HostUp[o.Host] || !n.mayStillWrite(o) {
			continue
		}
		if left := FenceTime(o.Fence) - gone; left > 0 {
			n.again(left)
			continue
		}
		out = append(out, o)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Task < out[j].Task })
	return out
}

// former names what a replica that must not be twice waits for: an assignment of
// it that is not taken back yet, which its host may be about to start, or a
// report, which is there until the container is gone.
func (n *next) former(a record.Assignment) string {
	for _, o := range n.Assignments {
		if o.Task != a.Task && o.Service == a.Service && o.Slot == a.Slot {
			return "the former " + a.Container.Name
		}
	}
	for _, o := range n.Observed {
		if o.Task == a.Task || o.Service != a.Service || o.Slot != a.Slot {
			continue
		}
		_, counts := n.Gone[o.Host]
		switch where := "the former " + a.Container.Name + " on " + n.hostName(o.Host) + ", which does not answer"; {
		case n.HostUp[o.Host]:
			return "the former " + a.Container.Name
		case o.Fence > 0 && counts:
			return where + fmt.Sprintf(": it has certainly stopped there %s after it was seen to be gone (docker clocker host rm --force says that it has),", FenceTime(o.Fence))
		default:
			return where + " and may still run it (docker clocker host rm --force says that it does not),"
		}
	}
	return ""
}
