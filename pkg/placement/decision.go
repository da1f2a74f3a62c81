package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"clocker.io/clocker/pkg/model"
)

// Decision is a request's outcome. Either Host is set or Refusals is.
type Decision struct {
	Request Request
	// Host is the id of the chosen host.
	Host string
	// Task is the id under which a Fleet keeps what was reserved.
	Task string
	// Ports are the request's ports with every HostPort decided.
	Ports []model.Port
	// Reason says why the host was chosen.
	Reason string
	// Refusals says for each host why it was not eligible. Decisions of one
	// call may share them.
	Refusals []Refusal
}

// Refusal is why a filter turned a host away.
type Refusal struct {
	Host, Filter, Reason string
	// Group is the reason without what differs between hosts; empty means
	// Reason. Free is what the host had of what a filter for amounts asks for.
	Group string
	Free  int64
}

// String renders "h1: port tcp/80 is taken by web".
func (r Refusal) String() string { return r.Host + ": " + r.Reason }

// Err describes a decision without a host; nil when it has one. Hosts with the
// same reason are told together, most hosts first.
func (d Decision) Err() error {
	if d.Host != "" {
		return nil
	}
	if len(d.Refusals) == 0 {
		return fmt.Errorf("no host for %s.%d: the fleet has no hosts (add one with docker clocker host add)", d.Request.Service, d.Request.Slot)
	}
	return fmt.Errorf("no host for %s.%d: %s", d.Request.Service, d.Request.Slot, Summary(d.Refusals))
}

// The most that a summary tells of: groups, and hosts of one by their names.
const (
	mostGroups = 8
	mostNames  = 3
)

// Summary tells refusals with the same reason together, those of most hosts
// first: "812 hosts: not enough memory: 2GiB asked, at most 512MiB free; h7: it
// is cordoned".
func Summary(refusals []Refusal) string {
	type key struct{ filter, group string }
	var groups [][]Refusal
	at := map[key]int{}
	for _, r := range refusals {
		k := key{r.Filter, orElse(r.Group, r.Reason)}
		i, known := at[k]
		if !known {
			i = len(groups)
			at[k] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], r)
	}
	slices.SortStableFunc(groups, func(a, b []Refusal) int { return cmp.Compare(len(b), len(a)) })
	var parts []string
	rest := 0
	for i, g := range groups {
		if i >= mostGroups {
			rest += len(g)
			continue
		}
		parts = append(parts, hostsOf(g)+": "+reasonOf(g))
	}
	if rest > 0 {
		parts = append(parts, fmt.Sprintf("%d more hosts: other reasons", rest))
	}
	return strings.Join(parts, "; ")
}

func hostsOf(group []Refusal) string {
	if len(group) > mostNames {
		return fmt.Sprintf("%d hosts", len(group))
	}
	names := make([]string, len(group))
	for i, r := range group {
		names[i] = r.Host
	}
	return strings.Join(names, ", ")
}

func reasonOf(group []Refusal) string {
	first := group[0]
	if !slices.ContainsFunc(group, func(r Refusal) bool { return r.Reason != first.Reason }) {
		return first.Reason
	}
	most := int64(0)
	for _, r := range group {
		most = max(most, r.Free)
	}
	text := countText
	switch first.Filter {
	case FilterCPU:
		text = cpuText
	case FilterMemory:
		text = memoryText
	case FilterPIDs, filterDevices:
	default:
		return first.Group
	}
	return fmt.Sprintf("%s, at most %s free", first.Group, text(most))
}
