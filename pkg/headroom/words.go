package headroom

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
)

// reason says a decision in words.
func (s *Snapshot) reason(d *Decision, size int, free []Machine) string {
	var out []string
	for _, m := range d.Dimensions {
		switch {
		case m.Problem != "":
			out = append(out, m.Name+": "+m.Problem)
		case m.Needed > 0:
			out = append(out, m.Name+" lacks "+m.lacks())
		}
	}
	if len(out) == 0 {
		switch {
		case len(d.Dimensions) == 0:
			out = append(out, "no headroom is asked for")
		case d.Event == Cold:
			out = append(out, "there is more room than is asked for")
		default:
			out = append(out, "there is the room that is asked for")
		}
	}
	for _, o := range d.Blocked {
		if o.Hopeless != "" {
			out = append(out, fmt.Sprintf("%s.%d of %s cannot be placed, and %s", o.Request.Service, o.Request.Slot, o.Request.App, o.Hopeless))
			break
		}
	}
	return strings.Join(append(out, s.deed(d, size, free)), "; ")
}

// deed says what is done about the number of hosts.
func (s *Snapshot) deed(d *Decision, size int, free []Machine) string {
	have := count(d.Hosts, "host")
	if d.Coming > 0 {
		have += fmt.Sprintf(" and %d on the way", d.Coming)
	}
	switch {
	case s.Policy.Suspended:
		return fmt.Sprintf("%s of %d wanted, but the policy is suspended", have, d.Desired)
	case len(d.Ask) > 0:
		return fmt.Sprintf("%s: %s asked for (%s)", have, count(len(d.Ask), "machine"), d.Ask[0].Why)
	case len(d.Leave) > 0:
		names := make([]string, len(d.Leave))
		for i, l := range d.Leave {
			names[i] = l.Name
		}
		return fmt.Sprintf("%s: %s may go", have, strings.Join(names, ", "))
	case d.Target > size && !s.mayAsk(0):
		return fmt.Sprintf("%s: no more than %d are allowed", have, s.Policy.MaxHosts)
	case d.Target > size && len(free) == 0:
		why := s.NoFree
		if why == "" {
			why = "no provider has a machine left"
		}
		return fmt.Sprintf("%s of %d wanted: %s", have, d.Target, why)
	case d.Desired > size:
		return fmt.Sprintf("%s of %d wanted: one is asked for when that has been so for %s", have, d.Desired, upDelay(s))
	case d.Desired < size && s.Policy.RemoveEmpty && len(d.Stay) > 0:
		return fmt.Sprintf("%s where %d would do: %s stays, as %s", have, d.Desired, d.Stay[0].Name, d.Stay[0].Why)
	}
	return have
}

func upDelay(s *Snapshot) time.Duration {
	up, _ := delays(s.Policy)
	return up
}

// lacks says how much is needed.
func (d *Dimension) lacks() string {
	return fmt.Sprintf("%s (%s of %s free, %s wanted)", d.Amount(d.Needed), d.Amount(d.Available), d.Amount(d.Possible), d.Amount(d.Headroom))
}

// Amount writes one of the dimension's figures with its unit.
func (d *Dimension) Amount(n int64) string {
	switch {
	case d.Name == "cpu":
		return strconv.FormatFloat(float64(n)/1e9, 'f', -1, 64) + " CPUs"
	case d.Name == "memory":
		sign := ""
		if n < 0 {
			sign, n = "-", -n
		}
		return sign + units.BytesSize(float64(n))
	case strings.HasPrefix(d.Name, "for "):
		return count(int(n), "replica")
	}
	return count(int(n), "container")
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// round drops what nobody reads of a duration.
func round(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(time.Second)
}
