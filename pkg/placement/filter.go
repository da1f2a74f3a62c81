package placement

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/strategy"
)

// filter refuses hosts for a class of requests.
type filter struct {
	name string
	// hosts are those that pass, for a filter whose answer no replica changes.
	hosts set
	// ok reports whether a host passes, for one whose answer may change.
	ok func(h int32) bool
	// among chooses of several hosts at once; those that it leaves out are
	// refused.
	among func(hosts []int32) []int32
	// group is the strategy's, where among is that.
	group *grouping
	why   func(h int32) reason
	// room is how many replicas more pass on a host that passes, for a filter
	// that counts.
	room func(h int32) int
}

// reason is why a filter refuses a host. name, unless empty, is a better one
// than the filter's own; group and free are as in [Refusal].
type reason struct {
	name, text, group string
	free              int64
}

func plainReason(text string) reason { return reason{text: text} }

// passes reports whether one host passes on its own.
func (f *filter) passes(h int32) bool {
	if f.hosts != nil {
		return f.hosts.has(h)
	}
	return f.ok(h)
}

// fixed makes a filter that looks at hosts alone. rule says in full what is
// tested, so that the answer can be kept; "" means that it is not worth it.
func (c *class) fixed(name, rule string, test func(m *machine) bool, why func(m *machine) string) filter {
	f := c.fleet
	hosts, known := f.sets[rule]
	if !known || rule == "" {
		hosts = newSet(len(f.machines))
		for i := range f.machines {
			if m := &f.machines[i]; m.live && test(m) {
				hosts.put(int32(i))
			}
		}
		if rule != "" {
			f.sets[rule] = hosts
		}
	}
	return filter{name: name, hosts: hosts, why: func(h int32) reason { return plainReason(why(&f.machines[h])) }}
}

// baseFilters are those of every request, in the order in which they count.
func (c *class) baseFilters(r *Request) {
	add := func(name, rule string, test func(m *machine) bool, why func(m *machine) string) {
		c.filters = append(c.filters, c.fixed(name, rule, test, why))
	}
	add("host-up", "up", func(m *machine) bool { return m.Up }, func(m *machine) string { return orElse(m.Why, "its agent does not answer") })
	add("cordoned", "active", func(m *machine) bool { return !m.Cordoned }, func(m *machine) string { return orElse(m.Why, "it is cordoned") })
	if r.Host != "" {
		add("pinned", "", func(m *machine) bool { return m.Name == r.Host }, func(*machine) string { return "the service is pinned to host " + r.Host })
	}
	if len(r.Avoid) > 0 {
		add("avoid", "", func(m *machine) bool { return !slices.Contains(r.Avoid, m.ID) }, func(*machine) string { return "it is to be left" })
	}
	if p := r.Placement.Platform; p != "" {
		add("platform", "platform "+p, func(m *machine) bool { return runs(m.Platform, p) },
			func(m *machine) string {
				return fmt.Sprintf("the image is for %s, the host is %s", p, orElse(m.Platform, "of a platform that is not known"))
			})
	}
	for _, text := range r.Placement.Constraints {
		con, err := ParseConstraint(text)
		if err != nil {
			add("constraint", "", func(*machine) bool { return false }, func(*machine) string { return err.Error() })
			continue
		}
		text = con.String()
		add("constraint", "constraint "+text, func(m *machine) bool { return con.meets(&m.Host) }, func(m *machine) string { return text + " is asked, " + con.has(&m.Host) })
	}
	c.volumeFilters(r)
	c.limitFilters(r)
	c.amountFilters(r)
	if n := r.Placement.MaxPerHost; n > 0 {
		c.filters = append(c.filters, c.maxPerHost(n))
	}
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

// volumeFilters pin a replica to the only host that has one of its volumes.
func (c *class) volumeFilters(r *Request) {
	for _, v := range r.Volumes {
		at := c.fleet.volumes[v]
		if len(at) != 1 {
			continue
		}
		only := at[0]
		name := c.fleet.machines[only].Name
		hosts := newSet(len(c.fleet.machines))
		hosts.put(only)
		c.filters = append(c.filters, filter{
			name: "volume", hosts: hosts, why: func(int32) reason { return plainReason("volume " + v + " is on host " + name + " alone") },
		})
	}
}

// limitFilters refuse hosts whose engine would refuse the container's limits.
func (c *class) limitFilters(r *Request) {
	n := r.Resources.Limit.NanoCPUs
	if n <= 0 {
		return
	}
	c.filters = append(c.filters, c.fixed(filterCPULimit, fmt.Sprint("cpu limit ", n),
		func(m *machine) bool { return m.Capacity.NanoCPUs <= 0 || n <= m.Capacity.NanoCPUs },
		func(m *machine) string {
			return fmt.Sprintf("the limit of %s CPUs is more than the %s that it has", cpuText(n), cpuText(m.Capacity.NanoCPUs))
		}))
}

// amountFilters refuse hosts that have too little of what is counted.
func (c *class) amountFilters(r *Request) {
	f := c.fleet
	if len(r.Ports) > 0 {
		c.ports = askedPorts(r.Ports)
		c.filters = append(c.filters, filter{
			name: "port-free",
			ok:   func(h int32) bool { return c.ports.twice == "" && f.machines[h].ports.fits(&c.ports) },
			room: func(h int32) int { return f.machines[h].ports.times(&c.ports) },
			why: func(h int32) reason {
				if c.ports.twice != "" {
					return plainReason("the service asks for port " + c.ports.twice + " twice")
				}
				text, group := f.machines[h].ports.why(&c.ports)
				return reason{text: text, group: group}
			},
		})
	}
	if need := c.need; need != (model.Amounts{}) {
		c.filters = append(c.filters, filter{
			name: "resources",
			ok: func(h int32) bool {
				left := &f.loads[h].left
				return enough(need.NanoCPUs, left.NanoCPUs) && enough(need.MemoryBytes, left.MemoryBytes) && enough(need.PIDs, left.PIDs)
			},
			why: func(h int32) reason { return lacking(need, &f.machines[h].Capacity, &f.loads[h].left) },
			room: func(h int32) int {
				n, left := int64(Unbounded), &f.loads[h].left
				for _, a := range [][2]int64{{need.NanoCPUs, left.NanoCPUs}, {need.MemoryBytes, left.MemoryBytes}, {need.PIDs, left.PIDs}} {
					if a[0] > 0 {
						n = min(n, a[1]/a[0])
					}
				}
				return int(n)
			},
		})
	}
	if len(r.Resources.Devices)+len(r.Resources.Generic) > 0 {
		c.filters = append(c.filters, filter{
			name: filterDevices,
			ok:   func(h int32) bool { text, _, _ := f.machines[h].gear.lacks(&r.Resources); return text == "" },
			why: func(h int32) reason {
				text, group, free := f.machines[h].gear.lacks(&r.Resources)
				return reason{text: text, group: group, free: free}
			},
		})
	}
}

func enough(need, left int64) bool { return need <= 0 || need <= left }

// lacking says what a host has too little of.
func lacking(need model.Amounts, has, left *model.Amounts) reason {
	for _, a := range []struct {
		name            string
		need, has, left int64
		text            func(int64) string
	}{
		{FilterCPU, need.NanoCPUs, has.NanoCPUs, left.NanoCPUs, cpuText},
		{FilterMemory, need.MemoryBytes, has.MemoryBytes, left.MemoryBytes, memoryText},
		{FilterPIDs, need.PIDs, has.PIDs, left.PIDs, countText},
	} {
		left := max(0, a.left)
		switch {
		case enough(a.need, a.left):
		case a.has <= 0:
			return reason{name: a.name, text: fmt.Sprintf("how much %s it has is not known, %s is asked", a.name, a.text(a.need))}
		default:
			group := fmt.Sprintf("not enough %s: %s asked", a.name, a.text(a.need))
			return reason{a.name, fmt.Sprintf("%s, %s free", group, a.text(left)), group, left}
		}
	}
	return reason{}
}

// Filters that compare amounts: [Refusal.Free] is in billionths of a CPU, in
// bytes, or a count.
const (
	FilterCPU    = "cpu"
	FilterMemory = "memory"
	FilterPIDs   = "pids"

	filterCPULimit = "cpu-limit"
	filterDevices  = "devices"
)

func cpuText(n int64) string    { return strconv.FormatFloat(float64(n)/1e9, 'f', -1, 64) }
func memoryText(n int64) string { return units.BytesSize(float64(n)) }
func countText(n int64) string  { return strconv.FormatInt(n, 10) }

// Reservation is what a replica keeps of a host: what it reserves, and at least
// the minima of its provisioning properties and of the chain's
// provisioning-flags.
func Reservation(p Policy, of model.Placement, r model.Resources) model.Amounts {
	need := r.Reserve
	atLeast := func(cores float64, memory int64) {
		need.NanoCPUs = max(need.NanoCPUs, int64(cores*1e9))
		need.MemoryBytes = max(need.MemoryBytes, memory)
	}
	atLeast(of.MinCores, of.MinMemory)
	for _, chain := range [][]model.Strategy{p.Strategies, of.Strategies} {
		for _, s := range chain {
			if s.Name == strategy.ProvisioningFlags && !s.Soft {
				atLeast(s.Cores, s.MemoryBytes)
			}
		}
	}
	return need
}

func (c *class) maxPerHost(n int) filter {
	service := &c.fleet.services
	return filter{
		name: strategy.MaxPerHost,
		ok:   func(h int32) bool { return int(service.all[c.ref.service].get(h)) < n },
		room: func(h int32) int { return n - int(service.all[c.ref.service].get(h)) },
		why: func(h int32) reason {
			return plainReason(fmt.Sprintf("it has %d replicas of the service, at most %d are allowed", service.all[c.ref.service].get(h), n))
		},
	}
}

func (c *class) maxContainers(n int) filter {
	f := c.fleet
	return filter{
		name: strategy.MaxContainers,
		ok:   func(h int32) bool { return int(f.loads[h].containers) < n },
		room: func(h int32) int { return n - int(f.loads[h].containers) },
		why: func(h int32) reason {
			group := fmt.Sprintf("it has all the containers that it may have, %d", n)
			if have := int(f.loads[h].containers); have > n {
				return reason{text: fmt.Sprintf("it has %d containers, at most %d are allowed", have, n), group: group}
			}
			return plainReason(group)
		},
	}
}

func (c *class) maxCPU(most float64) filter {
	return c.fixed(strategy.MaxCPU, fmt.Sprint("cpu ", most), func(m *machine) bool { return m.Usage >= 0 && m.Usage < most },
		func(m *machine) string {
			if m.Usage < 0 {
				return "how busy its CPUs are is not known"
			}
			return fmt.Sprintf("its CPUs are %.0f%% busy, less than %.0f%% is asked", m.Usage*100, most*100)
		})
}

func (c *class) hostname(expression string) filter {
	re, err := wholeName(expression)
	if err != nil {
		return c.fixed(strategy.Hostname, "", func(*machine) bool { return false }, func(*machine) string { return err.Error() })
	}
	return c.fixed(strategy.Hostname, "hostname "+expression,
		func(m *machine) bool { return re.MatchString(m.Name) || m.Hostname != "" && re.MatchString(m.Hostname) },
		func(*machine) string { return "its name does not match " + expression })
}

// wholeName reads the expression of hostname, which is for the whole name.
func wholeName(expression string) (*regexp.Regexp, error) {
	if expression == "" {
		return nil, fmt.Errorf("strategy %s lacks a regular expression", strategy.Hostname)
	}
	if _, err := regexp.Compile(expression); err != nil {
		return nil, fmt.Errorf("strategy %s: %q is no regular expression", strategy.Hostname, expression)
	}
	return regexp.MustCompile("^(?:" + expression + ")$"), nil
}

func (c *class) labels(want []string) filter {
	lacks := func(m *machine) string {
		for _, l := range want {
			key, value, valued := strings.Cut(l, "=")
			switch has, ok := m.label(key); {
			case !ok:
				return "it has no label " + key
			case valued && has != value:
				return fmt.Sprintf("label %s is asked, its is %s", l, has)
			}
		}
		return ""
	}
	return c.fixed(strategy.Label, "labels "+strings.Join(want, ","), func(m *machine) bool { return lacks(m) == "" }, lacks)
}
