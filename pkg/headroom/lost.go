package headroom

import (
	"fmt"
	"time"

	"clocker.io/clocker/pkg/record"
)

// DefaultLostDelay is how long a host is lost before its machine is given back,
// where a policy does not say.
const DefaultLostDelay = 10 * time.Minute

// LostDelay is a policy's; less than 0 means never.
func LostDelay(p record.HeadroomPolicy) time.Duration {
	if p.LostDelay == 0 {
		return DefaultLostDelay
	}
	return p.LostDelay
}

// mostLost is how many of so many hosts may be lost for any to be given up: more
// of them at once are likely to be there, behind a network that is not.
func mostLost(hosts int) int { return max(1, hosts/4) }

// lost decides which machines go because their hosts are lost for good, and
// returns when time alone changes that.
func (s *Snapshot) lost(d *Decision) (again time.Time) {
	delay := LostDelay(s.Policy)
	if delay < 0 {
		return again
	}
	gone, up := 0, 0
	for _, h := range s.Hosts {
		if !h.LostSince.IsZero() {
			gone++
		}
		if h.Up {
			up++
		}
	}
	for _, h := range s.Hosts {
		if h.LostSince.IsZero() || h.Machine == "" || h.Leaving {
			continue
		}
		since := h.LostSince
		if since.Before(s.Began) {
			since = s.Began
		}
		wait, why := since.Add(delay).Sub(s.Now), ""
		switch {
		case s.Policy.Suspended:
			why = "the policy is suspended"
		case up == 0:
			why = "all hosts are lost at once, which is likely the network"
		case gone > mostLost(len(s.Hosts)):
			why = fmt.Sprintf("%d of %s are lost at once, which is likely the network", gone, count(len(s.Hosts), "host"))
		case len(h.Tasks) > 0 && !s.Policy.LostWithData:
			why = fmt.Sprintf("%s for it to be back, as their data is nowhere else (headroom set --lost-with-data, or provider release, gives it up)", waits(len(h.Tasks)))
		case wait > 0:
			why = fmt.Sprintf("it is lost, and given back in %s unless it is back", round(wait))
			if at := since.Add(delay + time.Millisecond); again.IsZero() || at.Before(again) {
				again = at
			}
		}
		if why != "" {
			d.Kept = append(d.Kept, Leave{h.ID, h.Name, why})
			continue
		}
		d.Lost = append(d.Lost, Leave{h.ID, h.Name, fmt.Sprintf("its host is lost since %s", h.LostSince.UTC().Format("15:04:05 UTC"))})
	}
	return again
}

func waits(n int) string {
	if n == 1 {
		return "1 replica waits"
	}
	return fmt.Sprintf("%d replicas wait", n)
}
