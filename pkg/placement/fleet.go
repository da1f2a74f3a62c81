package placement

import (
	"cmp"
	"slices"

	"clocker.io/clocker/pkg/model"
)

// Fleet is an index over hosts and the replicas on them. What Place decides is
// reserved in it at once. It is not safe for concurrent use.
//
// Hosts, tasks, services and applications are dense ints inside: what a
// decision looks at is arrays and sets, not maps.
type Fleet struct {
	policy Policy

	machines []machine
	loads    []load
	byID     map[string]int32
	free     []int32 // unused indexes of machines
	// order has the hosts by name, and rank the place of each in it; both are
	// made anew when sorted is false.
	order   []int32
	rank    []uint32
	sorted  bool
	buckets buckets
	// sets are hosts that a rule accepts, and zones hosts by the values of their
	// labels: kept until a host changes. ruled counts hosts with own rules.
	sets  map[string]set
	zones map[string]*zoning
	ruled int

	tasks     []task
	freeTasks []int32
	byTask    map[string]int32
	made      int // reservations that got a name here

	kinds    []kind
	refs     []kindRef
	kindIDs  map[kind]int32
	services tallies
	apps     tallies
	volumes  map[string][]int32

	// turn counts the decisions of breadth-first by whose chain it is in: ""
	// for the fleet's, "app/service" for a service's.
	turn   map[string]uint64
	random func() uint64

	calls
}

// machine is a host and what is on it.
type machine struct {
	Host
	used  model.Amounts // reserved by its tasks
	kinds []kindCount
	tasks []int32
	ports ports
	gear  *gear
	rules []Rule
	// unread says why the host's own rules cannot be read; then nothing passes.
	unread string
	live   bool
}

// load is what most filters and sorters look at, apart from the rest of the
// host, so that it is quickly gone through.
type load struct {
	// left is what may still be reserved.
	left model.Amounts
	// containers are the host's, those of others with them.
	containers int32
}

// kindCount is how many replicas of a kind a host has.
type kindCount struct{ kind, n int32 }

// tallies count replicas by host, for each of many names.
type tallies struct {
	ids map[string]int32
	all []tally
}

func (t *tallies) id(name string) int32 {
	if id, ok := t.ids[name]; ok {
		return id
	}
	id := int32(len(t.all))
	t.ids[name] = id
	t.all = append(t.all, tally{})
	return id
}

// NewFleet indexes hosts and their tasks.
func NewFleet(p Policy, hosts []Host) *Fleet {
	seed := uint64(0)
	f := &Fleet{
		policy: p, byID: make(map[string]int32, len(hosts)), byTask: map[string]int32{}, sets: map[string]set{}, zones: map[string]*zoning{},
		kindIDs: map[kind]int32{}, services: tallies{ids: map[string]int32{}}, apps: tallies{ids: map[string]int32{}},
		volumes: map[string][]int32{}, turn: map[string]uint64{},
		random: func() uint64 { seed += 0x9e3779b97f4a7c15; return mix(seed) },
	}
	for i := range hosts {
		f.PutHost(hosts[i])
	}
	return f
}

// mix turns a counter into bits without a pattern (the finisher of
// MurmurHash3).
func mix(x uint64) uint64 {
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// SetPolicy changes what holds for every request.
func (f *Fleet) SetPolicy(p Policy) {
	f.policy = p
	f.touch()
	for i := range f.machines {
		f.settle(int32(i))
	}
}

// SetRandom gives the source of the strategy random: uniform 64 bits. Without
// one the same calls on the same fleet give the same decisions.
func (f *Fleet) SetRandom(source func() uint64) { f.random = source }

// touch notes that something has changed that replicas do not.
func (f *Fleet) touch() {
	clear(f.sets)
	clear(f.zones)
}

// settle works out a host's load.
func (f *Fleet) settle(h int32) {
	m, keep, was := &f.machines[h], &f.policy.Reserve, f.loads[h].containers
	f.loads[h] = load{model.Amounts{
		NanoCPUs:    m.Capacity.NanoCPUs - keep.NanoCPUs - m.used.NanoCPUs,
		MemoryBytes: m.Capacity.MemoryBytes - keep.MemoryBytes - m.used.MemoryBytes,
		PIDs:        m.Capacity.PIDs - keep.PIDs - m.used.PIDs,
	}, int32(m.containers())}
	f.rebucket(h, was)
}

// PutHost adds or changes a host. Its tasks replace those that it had. The
// labels of h are kept, so they must not be changed afterwards.
func (f *Fleet) PutHost(h Host) {
	i, known := f.byID[h.ID]
	if known {
		f.dropTasks(i)
	}
	tasks := h.Tasks
	i = f.putHost(h)
	for _, t := range tasks {
		f.putTask(i, t, nil)
	}
}

// UpdateHost adds or changes a host and leaves its tasks as they are.
func (f *Fleet) UpdateHost(h Host) {
	i := f.putHost(h)
	for _, id := range f.machines[i].tasks {
		if t := &f.tasks[id]; t.more != nil {
			f.machines[i].hold(t, 1, f.holder(t))
		}
	}
}

// putHost sets all of a host but what its tasks hold.
func (f *Fleet) putHost(h Host) int32 {
	i, known := f.byID[h.ID]
	if !known {
		if n := len(f.free); n > 0 {
			i, f.free = f.free[n-1], f.free[:n-1]
		} else {
			i = int32(len(f.machines))
			f.machines = append(f.machines, machine{})
			f.loads = append(f.loads, load{})
		}
		f.byID[h.ID] = i
	}
	m := &f.machines[i]
	if m.ruled() {
		f.ruled--
	}
	if !known || m.Name != h.Name {
		f.sorted = false
	}
	f.setVolumes(i, h.Volumes)
	h.Tasks = nil
	m.Host, m.live = h, true
	m.gear, m.ports = newGear(&h), ports{}
	for key, holder := range h.Ports {
		if p, ok := parsePort(key); ok {
			m.ports.take(p, holder)
		}
	}
	m.Host.Ports = nil
	rules, err := readRules(h.Affinity)
	if m.rules, m.unread = rules, ""; err != nil {
		m.unread = err.Error()
	}
	if m.ruled() {
		f.ruled++
	}
	f.settle(i)
	f.touch()
	return i
}

func (f *Fleet) setVolumes(i int32, names []string) {
	for _, v := range f.machines[i].Volumes {
		if f.volumes[v] = slices.DeleteFunc(f.volumes[v], func(h int32) bool { return h == i }); len(f.volumes[v]) == 0 {
			delete(f.volumes, v)
		}
	}
	for _, v := range names {
		if !slices.Contains(f.volumes[v], i) {
			f.volumes[v] = append(f.volumes[v], i)
		}
	}
}

// RemoveHost forgets a host and its tasks.
func (f *Fleet) RemoveHost(id string) {
	i, known := f.byID[id]
	if !known {
		return
	}
	f.dropTasks(i)
	f.setVolumes(i, nil)
	if f.machines[i].ruled() {
		f.ruled--
	}
	delete(f.byID, id)
	f.machines[i] = machine{}
	f.free = append(f.free, i)
	f.sorted = false
	f.touch()
}

func (f *Fleet) dropTasks(host int32) {
	for {
		tasks := f.machines[host].tasks
		if len(tasks) == 0 {
			return
		}
		f.dropTask(tasks[len(tasks)-1])
	}
}

// ruled reports whether the host has rules of its own.
func (m *machine) ruled() bool { return len(m.rules) > 0 || m.unread != "" }

// containers are the host's, those of others with them.
func (m *machine) containers() int { return len(m.tasks) + m.Strangers }

// sort puts the hosts in order of their names.
func (f *Fleet) sort() {
	if f.sorted {
		return
	}
	f.order = f.order[:0]
	for i := range f.machines {
		if f.machines[i].live {
			f.order = append(f.order, int32(i))
		}
	}
	slices.SortFunc(f.order, func(a, b int32) int {
		return cmp.Or(cmp.Compare(f.machines[a].Name, f.machines[b].Name), cmp.Compare(f.machines[a].ID, f.machines[b].ID))
	})
	f.rank = make([]uint32, len(f.machines))
	for r, i := range f.order {
		f.rank[i] = uint32(r)
	}
	f.sorted = true
	f.refill()
	f.touch()
}
