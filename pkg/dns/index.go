package dns

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// Index is what names mean, kept up to date by the methods that take changes.
// All of its methods may be called at the same time.
type Index struct {
	log  *slog.Logger
	wake chan struct{}

	mu       sync.Mutex
	names    map[string]record.NameRecord // by key; guarded by mu
	networks map[string]netip.Prefix      // by id; guarded by mu
	local    map[netip.Addr][]string      // guarded by mu

	current atomic.Pointer[snapshot] // never nil
}

// gather is how long changes are gathered, at least, before the index is made
// anew: that takes some time with ten thousand names, and shall not take more
// than a fifth of a core however fast they change.
const gather = 5 * time.Millisecond

// NewIndex returns an empty index.
func NewIndex(log *slog.Logger) *Index {
	x := &Index{
		log: log, wake: make(chan struct{}, 1),
		names: map[string]record.NameRecord{}, networks: map[string]netip.Prefix{},
	}
	x.current.Store(build(nil, nil, nil))
	return x
}

// Run keeps the index up to date until ctx ends.
func (x *Index) Run(ctx context.Context) {
	for wait := gather; ; {
		select {
		case <-ctx.Done():
			return
		case <-x.wake:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		start := time.Now()
		x.rebuild()
		wait = max(gather, 4*time.Since(start))
	}
}

func (x *Index) rebuild() {
	x.mu.Lock()
	s := build(x.names, x.networks, x.local)
	x.mu.Unlock()
	x.current.Store(s)
}

func (x *Index) signal() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// ApplyNames takes a change of the records under net/names.
func (x *Index) ApplyNames(c store.Change) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if c.Reset {
		clear(x.names)
	}
	for _, raw := range c.Puts {
		r, err := store.Decode[record.NameRecord](raw)
		if err != nil {
			x.log.Error("name cannot be read", "key", raw.Key, "error", err)
			continue
		}
		x.names[raw.Key] = r
	}
	for _, k := range c.Deletes {
		delete(x.names, k)
	}
	x.signal()
}

// ApplyNetworks takes a change of the records under net/networks.
func (x *Index) ApplyNetworks(c store.Change) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if c.Reset {
		clear(x.networks)
	}
	for _, raw := range c.Puts {
		n, err := store.Decode[record.Network](raw)
		if err != nil {
			x.log.Error("network cannot be read", "key", raw.Key, "error", err)
			continue
		}
		if p, err := netip.ParsePrefix(n.Subnet); err == nil {
			x.networks[n.ID] = p.Masked()
		}
	}
	for _, k := range c.Deletes {
		delete(x.networks, path.Base(k))
	}
	x.signal()
}

// SetLocal says in which networks, by id, this host's own containers are, by
// address: also those that have no names yet may ask. The map is the index's
// from then on.
func (x *Index) SetLocal(m map[netip.Addr][]string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.local = m
	x.signal()
}

// snapshot is an index that does not change any more. Networks are small
// numbers in it.
type snapshot struct {
	sources map[netip.Addr][]int
	subnets []subnets
	names   map[string]*entry
	// full has the names that can be asked for from anywhere.
	full map[string]*answer
	// reverse has the replica at each address.
	reverse map[netip.Addr]target
}

// subnets are the networks whose prefix has the same length.
type subnets struct {
	bits int
	nets map[netip.Prefix]int
}

// entry is what a name means in each network.
type entry struct {
	nets    []int
	answers []*answer // as nets
}

// answer is what a name means in one network.
type answer struct {
	addrs   []netip.Addr
	targets []target
}

// target is one replica.
type target struct {
	addr  netip.Addr
	name  string // fully qualified: "shop-web-1."
	ports []model.Port
	net   int
}

func build(names map[string]record.NameRecord, networks map[string]netip.Prefix, local map[netip.Addr][]string) *snapshot {
	s := &snapshot{
		sources: map[netip.Addr][]int{}, names: map[string]*entry{}, full: map[string]*answer{},
		reverse: map[netip.Addr]target{},
	}
	number := map[string]int{}
	num := func(id string) int {
		n, ok := number[id]
		if !ok {
			n = len(number)
			number[id] = n
		}
		return n
	}
	for id, p := range networks {
		s.subnet(p.Bits()).nets[p] = num(id)
	}
	for _, r := range names {
		s.add(r, num)
	}
	for addr, ids := range local {
		nets := make([]int, len(ids))
		for i, id := range ids {
			nets[i] = num(id)
		}
		s.sources[addr] = nets
	}
	return s
}

func (s *snapshot) subnet(bits int) subnets {
	for _, b := range s.subnets {
		if b.bits == bits {
			return b
		}
	}
	b := subnets{bits, map[netip.Prefix]int{}}
	s.subnets = append(s.subnets, b)
	return b
}

func (s *snapshot) add(r record.NameRecord, num func(string) int) {
	var all []int
	var addrs []netip.Addr
	for _, id := range slices.Sorted(maps.Keys(r.Networks)) {
		na := r.Networks[id]
		text, _, _ := strings.Cut(na.Address, "/")
		addr, err := netip.ParseAddr(text)
		if err != nil {
			continue
		}
		n := num(id)
		all, addrs = append(all, n), append(addrs, addr)
		t := target{addr: addr, name: strings.ToLower(r.Replica) + ".", ports: r.Ports, net: n}
		s.reverse[addr] = t
		service := strings.ToLower(r.Service)
		full := service + "." + strings.ToLower(r.App)
		given := append([]string{r.Replica, service, full}, na.Aliases...)
		for i, name := range given {
			name = strings.ToLower(name)
			if name == "" || repeated(given, i) {
				continue
			}
			s.entry(name, n).add(t)
		}
		if f := s.full[full]; f != nil {
			f.add(t)
		} else {
			s.full[full] = &answer{addrs: []netip.Addr{addr}, targets: []target{t}}
		}
	}
	for _, addr := range addrs {
		s.sources[addr] = all
	}
}

func repeated(names []string, i int) bool {
	for _, n := range names[:i] {
		if strings.EqualFold(n, names[i]) {
			return true
		}
	}
	return false
}

func (s *snapshot) entry(name string, net int) *answer {
	e := s.names[name]
	if e == nil {
		e = &entry{}
		s.names[name] = e
	}
	for i, n := range e.nets {
		if n == net {
			return e.answers[i]
		}
	}
	a := &answer{}
	e.nets, e.answers = append(e.nets, net), append(e.answers, a)
	return a
}

func (a *answer) add(t target) {
	a.addrs, a.targets = append(a.addrs, t.addr), append(a.targets, t)
}

// from says in which networks a source is; none means outside.
func (s *snapshot) from(src netip.Addr) []int {
	if nets, ok := s.sources[src]; ok {
		return nets
	}
	if n, ok := s.network(src); ok {
		return []int{n}
	}
	return nil
}

// network is the network that an address belongs to.
func (s *snapshot) network(addr netip.Addr) (int, bool) {
	for _, b := range s.subnets {
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

// lookup says what a name, in lower case and without dots at its end, means to
// a source; nil when it means nothing. Of several networks the first that the
// source is in and that has the name answers.
func (s *snapshot) lookup(name string, src netip.Addr) *answer {
	nets := s.from(src)
	if len(nets) == 0 {
		return s.full[name]
	}
	e := s.names[name]
	if e == nil {
		return nil
	}
	for _, n := range nets {
		for i, m := range e.nets {
			if m == n {
				return e.answers[i]
			}
		}
	}
	return nil
}
