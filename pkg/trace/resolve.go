package trace

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"clocker.io/clocker/pkg/record"
)

// The kinds of party.
const (
	KindReplica   = "replica"
	KindService   = "service"
	KindContainer = "container"
	KindHost      = "host"
	KindOutside   = "outside"
)

// Party is one end of a connection.
type Party struct {
	// Kind is one of the Kind constants; Name is how the party is called in
	// the fleet.
	Kind, Name string
	// Places are where it is: one for each of its addresses. A service has
	// those of its replicas that can be reached.
	Places []Place
	// VIPs are a service's own addresses, by network id.
	VIPs map[string][]netip.Addr
	// Missing are a service's replicas that cannot be reached, with the
	// reason.
	Missing []string
}

// Place is an address with where it is.
type Place struct {
	// Name is the replica's or container's; Host is a host's id, empty
	// outside the fleet; Network is a network's id, empty for a host's own
	// address and outside.
	Name, Host, Network string
	Address             netip.Addr
}

// find works out who is meant. The error is what a user reads.
func (f Fleet) find(text string) (Party, *Hop) {
	if name, ok := strings.CutPrefix(text, "host:"); ok {
		if p, ok := f.findHost(name); ok {
			return p, nil
		}
		return Party{}, broken(HopName, "", fmt.Sprintf("there is no host %s in this fleet", name),
			"docker clocker host ls shows the hosts")
	}
	if a, err := netip.ParseAddr(text); err == nil {
		return f.findAddress(a.Unmap()), nil
	}
	if p, ok, hop := f.findReplica(text); ok || hop != nil {
		return p, hop
	}
	if p, ok, hop := f.findService(text); ok || hop != nil {
		return p, hop
	}
	if p, ok, hop := f.findContainer(text); ok || hop != nil {
		return p, hop
	}
	if p, ok := f.findHost(text); ok {
		return p, nil
	}
	return Party{}, broken(HopName, "", fmt.Sprintf("nothing in this fleet is called %s: no replica, service, running container or host", text),
		"docker clocker ps shows replicas and docker clocker network inspect the containers of a network; say host:NAME for a host")
}

func (f Fleet) findHost(name string) (Party, bool) {
	for id, h := range f.Hosts {
		if h.Name != name && id != name {
			continue
		}
		p := Party{Kind: KindHost, Name: h.Name}
		for _, network := range slices.Sorted(maps.Keys(f.Attached)) {
			if _, on := f.Attached[network][id]; on {
				p.Places = append(p.Places, f.machine(network, id)...)
			}
		}
		if a, err := netip.ParseAddr(h.Address); err == nil {
			p.Places = append(p.Places, Place{Name: h.Name, Host: id, Address: a})
		}
		return p, true
	}
	return Party{}, false
}

// machine is the address that a host itself has on a network.
func (f Fleet) machine(network, host string) []Place {
	var out []Place
	for _, a := range slices.SortedFunc(maps.Keys(f.Endpoints[network]), netip.Addr.Compare) {
		if e := f.Endpoints[network][a]; e.Machine && e.Host == host {
			out = append(out, Place{Name: f.hostName(host), Host: host, Network: network, Address: a})
		}
	}
	return out
}

// findAddress never fails: an address that nobody in the fleet has is outside,
// or is nobody's, which the route shows.
func (f Fleet) findAddress(a netip.Addr) Party {
	for id, vips := range f.Services {
		for key, s := range vips {
			if slices.Contains(serviceAddresses(key, s), a) {
				p := f.service(s.App, s.Service)
				p.VIPs = map[string][]netip.Addr{id: {a}}
				return p
			}
		}
	}
	for id, endpoints := range f.Endpoints {
		if e, ok := endpoints[a]; ok {
			p := Place{Name: f.containerAt(id, a, e), Host: e.Host, Network: id, Address: a}
			if t, ok := f.taskAt(id, a); ok {
				p.Name = t.Name
				return Party{Kind: KindReplica, Name: t.Name, Places: []Place{p}}
			}
			kind := KindContainer
			if e.Machine {
				kind, p.Name = KindHost, f.hostName(e.Host)
			}
			if p.Name == "" {
				p.Name = a.String()
			}
			return Party{Kind: kind, Name: p.Name, Places: []Place{p}}
		}
	}
	for id, h := range f.Hosts {
		if h.Address == a.String() {
			return Party{Kind: KindHost, Name: h.Name, Places: []Place{{Name: h.Name, Host: id, Address: a}}}
		}
	}
	p := Place{Name: a.String(), Address: a}
	for id, n := range f.Networks {
		for _, s := range []string{n.Subnet, n.Subnet6} {
			if subnet, err := netip.ParsePrefix(s); err == nil && subnet.Contains(a) {
				p.Network = id
				return Party{Kind: KindContainer, Name: a.String(), Places: []Place{p}}
			}
		}
	}
	return Party{Kind: KindOutside, Name: a.String(), Places: []Place{p}}
}

func (f Fleet) taskAt(network string, a netip.Addr) (Task, bool) {
	for _, t := range f.Tasks {
		if t.Addresses[network] == a.String() {
			return t, true
		}
	}
	return Task{}, false
}

func (f Fleet) findReplica(name string) (Party, bool, *Hop) {
	for _, t := range f.Tasks {
		if t.Name != name {
			continue
		}
		p := Party{Kind: KindReplica, Name: name, Places: f.places(t)}
		if why := f.away(t, p.Places); why != "" {
			return p, true, broken(HopName, f.hostName(t.Host), fmt.Sprintf("replica %s %s", name, why),
				"docker clocker ps "+t.App+" --no-trunc shows more")
		}
		return p, true, nil
	}
	return Party{}, false, nil
}

// places are the addresses of a replica, those that DNS answers if any.
func (f Fleet) places(t Task) []Place {
	byNetwork := map[string][]netip.Addr{}
	add := func(network, text string) {
		if a, err := netip.ParseAddr(text); err == nil && !slices.Contains(byNetwork[network], a) {
			byNetwork[network] = append(byNetwork[network], a)
		}
	}
	for _, r := range f.Names[t.Host] {
		if r.Replica == t.Name {
			for network, a := range r.Networks {
				add(network, a.Address)
				add(network, a.Address6)
			}
		}
	}
	for network, a := range t.Addresses {
		add(network, a)
	}
	var out []Place
	for _, network := range slices.Sorted(maps.Keys(byNetwork)) {
		for _, a := range byNetwork[network] {
			out = append(out, Place{Name: t.Name, Host: t.Host, Network: network, Address: a})
		}
	}
	return out
}

// away says why a replica cannot be reached, in words that follow its name.
func (f Fleet) away(t Task, places []Place) string {
	switch {
	case t.Host == "":
		return "is on no host: " + t.Error
	case !f.Hosts[t.Host].Up:
		return fmt.Sprintf("is on host %s, which does not answer", f.hostName(t.Host))
	case t.State != record.StateRunning && t.Error != "":
		return fmt.Sprintf("on host %s is %s: %s", f.hostName(t.Host), t.State, t.Error)
	case t.State != record.StateRunning:
		return fmt.Sprintf("on host %s is %s", f.hostName(t.Host), t.State)
	case len(places) == 0:
		return fmt.Sprintf("on host %s is on no network of the fleet", f.hostName(t.Host))
	}
	return ""
}

// findService takes "service.app", and "service" where it is of one
// application only.
func (f Fleet) findService(name string) (Party, bool, *Hop) {
	var found []string
	for _, t := range f.Tasks {
		full := t.Service + "." + t.App
		if (full == name || t.Service == name) && !slices.Contains(found, full) {
			found = append(found, full)
		}
	}
	for _, vips := range f.Services {
		for _, s := range vips {
			full := s.Service + "." + s.App
			if (full == name || s.Service == name) && !slices.Contains(found, full) {
				found = append(found, full)
			}
		}
	}
	switch len(found) {
	case 0:
		return Party{}, false, nil
	case 1:
		i := strings.LastIndex(found[0], ".")
		p := f.service(found[0][i+1:], found[0][:i])
		if len(p.Places) == 0 {
			return p, true, broken(HopName, "", fmt.Sprintf("no replica of %s can be reached: %s", p.Name, strings.Join(p.Missing, "; ")),
				"docker clocker ps "+found[0][i+1:]+" --no-trunc shows more")
		}
		return p, true, nil
	}
	slices.Sort(found)
	return Party{}, true, broken(HopName, "", fmt.Sprintf("several applications have a service %s", name), "say which: "+strings.Join(found, " or "))
}

// serviceAddresses are a service's own addresses, of either family.
func serviceAddresses(key netip.Addr, s record.Service) []netip.Addr {
	all := []netip.Addr{key}
	for _, text := range []string{s.Address, s.Address6} {
		if a, err := netip.ParseAddr(text); err == nil && a != key {
			all = append(all, a)
		}
	}
	return all
}

// service gathers a service's replicas and addresses.
func (f Fleet) service(app, service string) Party {
	p := Party{Kind: KindService, Name: service + "." + app, VIPs: map[string][]netip.Addr{}}
	for id, vips := range f.Services {
		for key, s := range vips {
			if s.App == app && s.Service == service {
				p.VIPs[id] = serviceAddresses(key, s)
			}
		}
	}
	for _, t := range f.Tasks {
		if t.App != app || t.Service != service {
			continue
		}
		places := f.places(t)
		named := slices.ContainsFunc(slices.Collect(maps.Values(f.Names[t.Host])), func(r record.NameRecord) bool { return r.Replica == t.Name })
		switch why := f.away(t, places); {
		case why != "":
			p.Missing = append(p.Missing, t.Name+" "+why)
		case t.Health == "unhealthy" || t.Health == "starting":
			p.Missing = append(p.Missing, fmt.Sprintf("%s on host %s is %s", t.Name, f.hostName(t.Host), healthWord(t.Health)))
		case !named:
			p.Missing = append(p.Missing, fmt.Sprintf("%s on host %s has no name in the fleet's DNS", t.Name, f.hostName(t.Host)))
		default:
			p.Places = append(p.Places, places...)
		}
	}
	return p
}

func healthWord(h string) string {
	if h == "starting" {
		return "not healthy yet"
	}
	return h
}

// findContainer looks for a container by its name on its engine, which need
// not be of an application.
func (f Fleet) findContainer(name string) (Party, bool, *Hop) {
	p := Party{Kind: KindContainer, Name: name}
	hosts := map[string]bool{}
	for _, network := range slices.Sorted(maps.Keys(f.Endpoints)) {
		for _, a := range slices.SortedFunc(maps.Keys(f.Endpoints[network]), netip.Addr.Compare) {
			if e := f.Endpoints[network][a]; !e.Machine && f.containerAt(network, a, e) == name {
				p.Places = append(p.Places, Place{Name: name, Host: e.Host, Network: network, Address: a})
				hosts[f.hostName(e.Host)] = true
			}
		}
	}
	if len(hosts) > 1 {
		return p, true, broken(HopName, "", fmt.Sprintf("containers called %s run on hosts %s", name, strings.Join(slices.Sorted(maps.Keys(hosts)), ", ")),
			"name the one that is meant by its address (docker clocker network inspect shows it)")
	}
	return p, len(p.Places) > 0, nil
}

// containerAt is the name of the container with an address: what the endpoint
// says, else what DNS answers for; empty when neither knows.
func (f Fleet) containerAt(network string, a netip.Addr, e record.Endpoint) string {
	if e.Container != "" {
		return e.Container
	}
	for _, r := range f.Names[e.Host] {
		if at := r.Networks[network]; at.Address == a.String() || at.Address6 == a.String() {
			return r.Replica
		}
	}
	return ""
}
