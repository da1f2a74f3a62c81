package dns

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
)

// snapshot is an index that does not change any more. Networks are small
// numbers in it; names are in lower case and without a dot at the end.
type snapshot struct {
	sources map[netip.Addr][]int
	subnets []subnets
	names   map[string]*entry
	// full has the names that can be asked for from anywhere.
	full map[string]*answer
	// reverse has the name at each address.
	reverse map[netip.Addr]pointer
	// servers are the networks' own servers for everything else.
	servers map[int][]string
}

// subnets are the networks whose prefix has the same length and family.
type subnets struct {
	bits int
	is4  bool
	nets map[netip.Prefix]int
}

// entry is what a name means in each network.
type entry struct {
	nets    []int
	answers []*answer // as nets
}

// answer is what a name means in one network. One without addresses and
// targets is a name that exists only because there are names below it.
type answer struct {
	a, aaaa []netip.Addr
	targets []target
}

// target is one replica.
type target struct {
	a, aaaa netip.Addr // one may be the zero value
	name    string     // without the dot at the end
	ports   []model.Port
}

// pointer is the name of an address in a network.
type pointer struct {
	name string
	net  int
}

// vip is the address of a service in a network.
type vip struct{ a, aaaa netip.Addr }

// serviceKey identifies a service in a network.
type serviceKey struct {
	net       int
	app, name string
}

// builder makes a snapshot.
type builder struct {
	*snapshot
	number map[string]int
	vips   map[serviceKey]vip
}

func build(r Records) *snapshot {
	b := &builder{
		snapshot: &snapshot{
			sources: make(map[netip.Addr][]int, len(r.Names)+len(r.Local)), names: make(map[string]*entry, 2*len(r.Names)),
			full: map[string]*answer{}, reverse: make(map[netip.Addr]pointer, len(r.Names)), servers: map[int][]string{},
		},
		number: map[string]int{}, vips: map[serviceKey]vip{},
	}
	for id, n := range r.Networks {
		b.network(id, n)
	}
	for key, s := range r.Services {
		b.service(key, s)
	}
	for _, n := range r.Names {
		b.add(n)
	}
	for addr, ids := range r.Local {
		nets := make([]int, len(ids))
		for i, id := range sortedIDs(ids) {
			nets[i] = b.num(id)
		}
		b.sources[addr] = nets
	}
	return b.snapshot
}

func (b *builder) num(id string) int {
	n, ok := b.number[id]
	if !ok {
		n = len(b.number)
		b.number[id] = n
	}
	return n
}

func (b *builder) network(id string, n record.Network) {
	num := b.num(id)
	for _, text := range []string{n.Subnet, n.Subnet6} {
		if p, err := netip.ParsePrefix(text); err == nil {
			b.subnet(p.Bits(), p.Addr().Is4())[p.Masked()] = num
		}
	}
	if len(n.DNS) > 0 {
		b.servers[num] = n.DNS
	}
}

func (s *snapshot) subnet(bits int, is4 bool) map[netip.Prefix]int {
	for _, b := range s.subnets {
		if b.bits == bits && b.is4 == is4 {
			return b.nets
		}
	}
	b := subnets{bits, is4, map[netip.Prefix]int{}}
	s.subnets = append(s.subnets, b)
	return b.nets
}

// service notes a service's address. It has its names also while no replica
// can be reached: whoever holds on to the address finds the next one there.
func (b *builder) service(key string, s record.Service) {
	id, _, _ := strings.Cut(key, "/")
	net, app, name := b.num(id), strings.ToLower(s.App), strings.ToLower(s.Service)
	v := vip{address(s.Address), address(s.Address6)}
	if name == "" || app == "" || !v.a.IsValid() && !v.aaaa.IsValid() {
		return
	}
	b.vips[serviceKey{net, app, name}] = v
	full := name + "." + app
	for _, addr := range []netip.Addr{v.a, v.aaaa} {
		if addr.IsValid() {
			b.reverse[addr] = pointer{full, net}
		}
	}
	b.at(name, net).address(v.a, v.aaaa)
	b.at(full, net).address(v.a, v.aaaa)
	b.outside(full).address(v.a, v.aaaa)
}

// add takes in the names of one container.
func (b *builder) add(r record.NameRecord) {
	var all []int
	var sources []netip.Addr
	app, name, replica := strings.ToLower(r.App), strings.ToLower(r.Service), strings.ToLower(r.Replica)
	ids := slices.Collect(maps.Keys(r.Networks))
	slices.Sort(ids) // the order in which networks are looked at for a name
	for _, id := range ids {
		na := r.Networks[id]
		t := target{a: address(na.Address), aaaa: address(na.Address6), name: replica, ports: r.Ports}
		if !t.a.IsValid() && !t.aaaa.IsValid() {
			continue
		}
		net := b.num(id)
		all = append(all, net)
		for _, addr := range []netip.Addr{t.a, t.aaaa} {
			if addr.IsValid() {
				sources = append(sources, addr)
				b.reverse[addr] = pointer{replica, net}
			}
		}
		v, spread := b.vips[serviceKey{net, app, name}]
		// shared adds to a name that means the service, own to one that means
		// this container.
		shared := func(a *answer) {
			if spread {
				a.address(v.a, v.aaaa)
			} else {
				a.address(t.a, t.aaaa)
			}
			a.target(t)
		}
		own := func(a *answer) {
			a.address(t.a, t.aaaa)
			a.target(t)
		}
		own(b.at(replica, net))
		if app != "" && name != "" {
			full := name + "." + app
			shared(b.at(name, net))
			shared(b.at(full, net))
			own(b.at("tasks."+name, net))
			own(b.at("tasks."+full, net))
			shared(b.outside(full))
			own(b.outside("tasks." + full))
		}
		for _, alias := range na.Aliases {
			switch alias = strings.ToLower(strings.TrimSuffix(alias, ".")); {
			case alias == "":
			case name == "": // of a container that no application has
				own(b.at(alias, net))
			default:
				shared(b.at(alias, net))
			}
		}
	}
	for _, addr := range sources {
		b.sources[addr] = all
	}
}

// at is the answer for a name in a network, which is made when there is none,
// as are those of the names above it.
func (b *builder) at(name string, net int) *answer {
	e := b.names[name]
	if e == nil {
		e = &entry{}
		b.names[name] = e
	}
	for i, n := range e.nets {
		if n == net {
			return e.answers[i]
		}
	}
	a := &answer{}
	e.nets, e.answers = append(e.nets, net), append(e.answers, a)
	if _, above, ok := strings.Cut(name, "."); ok && above != "" {
		b.at(above, net)
	}
	return a
}

func (b *builder) outside(name string) *answer {
	a := b.full[name]
	if a == nil {
		a = &answer{}
		b.full[name] = a
		if _, above, ok := strings.Cut(name, "."); ok {
			b.outside(above)
		}
	}
	return a
}

// address adds addresses that are not there yet. A service's own address, which
// all its replicas add, is among the first; a container adds its own, for
// several names that are the same, one after the other.
func (a *answer) address(v4, v6 netip.Addr) {
	a.a, a.aaaa = with(a.a, v4), with(a.aaaa, v6)
}

func with(list []netip.Addr, addr netip.Addr) []netip.Addr {
	const first = 16
	n := len(list)
	if !addr.IsValid() || n > 0 && list[n-1] == addr || slices.Contains(list[:min(n, first)], addr) {
		return list
	}
	return append(list, addr)
}

// target adds a replica, unless it was the last to be added: one container may
// have the same name as its service and as an alias.
func (a *answer) target(t target) {
	if n := len(a.targets); n > 0 && a.targets[n-1].a == t.a && a.targets[n-1].aaaa == t.aaaa {
		return
	}
	a.targets = append(a.targets, t)
}

func (a *answer) empty() bool { return len(a.a)+len(a.aaaa)+len(a.targets) == 0 }

// address reads one with or without a prefix length; the zero value for what
// is none.
func address(text string) netip.Addr {
	text, _, _ = strings.Cut(text, "/")
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}

// from says in which networks a source is; none means outside.
func (s *snapshot) from(src netip.Addr) []int {
	if nets, ok := s.sources[src]; ok {
		return nets
	}
	if n, ok := s.within(src, src.BitLen()); ok {
		return []int{n}
	}
	return nil
}

// within is the network that the first bits of an address belong to.
func (s *snapshot) within(addr netip.Addr, bits int) (int, bool) {
	for _, b := range s.subnets {
		if b.is4 != addr.Is4() || b.bits > bits {
			continue
		}
		p, err := addr.Prefix(b.bits)
		if err != nil {
			continue
		}
		if n, ok := b.nets[p]; ok {
			return n, true
		}
	}
	return 0, false
}

// lookup says what a name means to somebody in the given networks; nil when it
// means nothing. Of several networks the first that has the name answers.
func (s *snapshot) lookup(name string, nets []int) *answer {
	if len(nets) == 0 {
		return s.full[name]
	}
	e := s.names[name]
	if e == nil {
		return nil
	}
	var above *answer
	for _, n := range nets {
		for i, m := range e.nets {
			if m != n {
				continue
			}
			if a := e.answers[i]; !a.empty() {
				return a
			}
			above = e.answers[i]
		}
	}
	return above
}

// upstream are the servers that the asker's networks have of their own.
func (s *snapshot) upstream(nets []int) []string {
	for _, n := range nets {
		if servers := s.servers[n]; len(servers) > 0 {
			return servers
		}
	}
	return nil
}
