package controller

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"clocker.io/clocker/pkg/plan"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// cache is the fleet's state as last seen, kept up by one watch.
type cache struct {
	keys  store.Keys
	fleet string

	mu sync.RWMutex // guards the following fields
	// revision is the etcd revision up to which everything is seen; 0 until
	// the first read.
	revision int64
	// changed is closed and made anew at each change; never nil.
	changed chan struct{}
	hosts   map[string]store.Item[record.Host]
	facts   map[string]record.HostFacts
	leases  map[string]record.HostLease
	// leaseGone is when a host's lease was seen to go, or first seen not to be
	// there, by this process's own clock; taking one begins it anew.
	leaseGone   map[string]time.Time
	fences      map[string]store.Item[record.HostFence] // by host
	apps        map[string]*appCache
	assignments map[string]store.Item[record.Assignment] // by task
	observed    map[string]record.Observed               // by task
	// tasks are the same by application, onHost assignments by host.
	tasks       map[string]*appTasks
	onHost      map[string]map[string]bool
	networks    map[string]record.Network
	pools       map[string]record.Pool
	published   map[string]record.Published // by "tcp_80"
	uses        map[string]map[string]bool  // network id → host ids
	underlays   map[string]record.Underlay
	events      map[string]record.Event
	usage       map[string]record.HostUsage                    // by host
	health      map[string]store.Item[record.HostHealth]       // by host
	memberships map[string]store.Item[record.Membership]       // by host
	controllers map[string]store.Item[record.ControllerMember] // by name
	running     map[string]record.ControllerLease              // controllers, by name
	users       map[string]store.Item[record.User]             // by name
	tokens      map[string]store.Item[record.Token]            // by id
	providers   map[string]store.Item[record.Provider]         // by name
	machines    map[string]store.Item[record.Machine]          // by id
	policies    policies
	// touched is what placement has not seen yet.
	touched touched
	// seenHosts is what views share; empty once it is out of date.
	seenHosts seenHosts
	// eventLog are the ids of events in the order in which they came in.
	eventLog eventLog
	// wakes are those who wait for a part; it has a lock of its own.
	wakes wakes
}

// policies are those of the fleet; a revision of 0 means that none was set.
type policies struct {
	placement store.Item[record.PlacementPolicy]
	headroom  store.Item[record.HeadroomPolicy]
}

type appCache struct {
	state    store.Item[record.AppState]
	releases map[int]*releaseCache
}

type releaseCache struct {
	status store.Item[record.ReleaseStatus]
	parts  map[string]releasePart
	// release is decoded from the parts when all are there; nil before.
	release *record.Release
	// templates are the release's replicas, worked out once.
	templates []plan.Template
}

// releasePart is one part of a release too large for one key.
type releasePart struct {
	Of   int    `json:"of"`
	Data []byte `json:"data"`
}

func newCache(fleet string) *cache {
	c := &cache{keys: store.NewKeys(fleet), fleet: fleet, changed: make(chan struct{})}
	c.wakes.subs, c.wakes.touched = map[topic]map[*subscription]bool{}, map[topic]bool{}
	c.clear()
	return c
}

func (c *cache) clear() {
	c.hosts = map[string]store.Item[record.Host]{}
	c.facts = map[string]record.HostFacts{}
	c.leases, c.leaseGone = map[string]record.HostLease{}, map[string]time.Time{}
	c.fences = map[string]store.Item[record.HostFence]{}
	c.apps = map[string]*appCache{}
	c.assignments = map[string]store.Item[record.Assignment]{}
	c.observed = map[string]record.Observed{}
	c.tasks, c.onHost = map[string]*appTasks{}, map[string]map[string]bool{}
	c.networks = map[string]record.Network{}
	c.pools = map[string]record.Pool{}
	c.published = map[string]record.Published{}
	c.uses = map[string]map[string]bool{}
	c.underlays = map[string]record.Underlay{}
	c.events = map[string]record.Event{}
	c.usage = map[string]record.HostUsage{}
	c.health = map[string]store.Item[record.HostHealth]{}
	c.memberships = map[string]store.Item[record.Membership]{}
	c.controllers = map[string]store.Item[record.ControllerMember]{}
	c.running = map[string]record.ControllerLease{}
	c.users = map[string]store.Item[record.User]{}
	c.tokens = map[string]store.Item[record.Token]{}
	c.providers = map[string]store.Item[record.Provider]{}
	c.machines = map[string]store.Item[record.Machine]{}
	c.policies = policies{}
	c.touched = touched{all: true}
	c.seenHosts = seenHosts{}
	c.eventLog.reset()
	c.wakes.touchAll()
}

// apply takes in a change of the watch.
func (c *cache) apply(ch store.Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch.Reset {
		c.clear()
	}
	for _, k := range ch.Deletes {
		c.remove(strings.TrimPrefix(k, c.keys.Prefix()))
	}
	for _, r := range ch.Puts {
		c.put(strings.TrimPrefix(r.Key, c.keys.Prefix()), r)
	}
	if ch.Reset {
		for id := range c.hosts {
			c.noteGone(id)
		}
	}
	c.revision = ch.Revision
	close(c.changed)
	c.changed = make(chan struct{})
	c.wakes.fire()
}

func (c *cache) put(key string, r store.Raw) {
	p := strings.Split(key, "/")
	c.touched.key(p)
	c.wakes.touchKey(p)
	switch {
	case p[0] == "hosts" && len(p) == 3 && p[2] == "spec":
		setItem(c.hosts, p[1], r)
		c.noteGone(p[1])
		c.seenHosts = seenHosts{}
	case p[0] == "hosts" && len(p) == 3 && p[2] == "facts":
		set(c.facts, p[1], r)
	case p[0] == "hosts" && len(p) == 3 && p[2] == "lease":
		set(c.leases, p[1], r)
		delete(c.leaseGone, p[1])
		c.seenHosts = seenHosts{}
	case p[0] == "apps" && len(p) >= 3:
		c.putApp(p[1], p[2:], r)
	case p[0] == "assign" && len(p) == 3:
		c.putAssignment(p[2], r)
	case p[0] == "observed" && len(p) == 3:
		c.putObserved(p[2], r)
	case p[0] == "net" && p[1] == "networks" && len(p) == 3:
		c.touchNetwork(p[2])
		set(c.networks, p[2], r)
		c.touchNetwork(p[2])
	case p[0] == "net" && p[1] == "pools" && len(p) == 3:
		set(c.pools, p[2], r)
	case p[0] == "net" && p[1] == "published" && len(p) == 3:
		set(c.published, p[2], r)
	case p[0] == "net" && p[1] == "hosts" && len(p) == 3:
		set(c.underlays, p[2], r)
	case p[0] == "net" && p[1] == "uses" && len(p) == 4:
		if c.uses[p[2]] == nil {
			c.uses[p[2]] = map[string]bool{}
		}
		c.uses[p[2]][p[3]] = true
		c.touchNetwork(p[2])
	case p[0] == "events" && len(p) == 2:
		if _, again := c.events[p[1]]; !again {
			c.eventLog.add(p[1])
		}
		set(c.events, p[1], r)
	default:
		c.putFleet(p, r)
	}
}

func (c *cache) putApp(app string, p []string, r store.Raw) {
	a := c.apps[app]
	if a == nil {
		a = &appCache{releases: map[int]*releaseCache{}}
		c.apps[app] = a
	}
	if p[0] == "current" {
		if v, err := store.Decode[record.AppState](r); err == nil {
			a.state = store.Item[record.AppState]{Key: r.Key, Value: v, Revision: r.Revision, Created: r.Created}
		}
		return
	}
	if p[0] != "releases" || len(p) < 3 {
		return
	}
	n, err := strconv.Atoi(p[1])
	if err != nil {
		return
	}
	rel := a.releases[n]
	if rel == nil {
		rel = &releaseCache{parts: map[string]releasePart{}}
		a.releases[n] = rel
	}
	switch {
	case p[2] == "status":
		if v, err := store.Decode[record.ReleaseStatus](r); err == nil {
			rel.status = store.Item[record.ReleaseStatus]{Key: r.Key, Value: v, Revision: r.Revision, Created: r.Created}
		}
	case p[2] == "parts" && len(p) == 4:
		if v, err := store.Decode[releasePart](r); err == nil {
			rel.parts[p[3]] = v
			if rel.release = joinParts(rel.parts); rel.release != nil {
				rel.templates = plan.Templates(c.fleet, rel.release)
			}
		}
	}
}

// joinParts decodes a release; nil until every part is there.
func joinParts(parts map[string]releasePart) *record.Release {
	var data []byte
	names := slices.Sorted(maps.Keys(parts))
	for _, n := range names {
		if parts[n].Of != len(parts) {
			return nil
		}
		data = append(data, parts[n].Data...)
	}
	var rel record.Release
	if json.Unmarshal(data, &rel) != nil || rel.Application == nil {
		return nil
	}
	return &rel
}

// splitRelease is the opposite of joinParts.
func splitRelease(rel *record.Release) ([]releasePart, error) {
	data, err := json.Marshal(rel)
	if err != nil {
		return nil, err
	}
	// Base64 makes 4 of 3 bytes; an etcd request takes 1.5 MiB.
	chunks := slices.Collect(slices.Chunk(data, 512<<10))
	parts := make([]releasePart, len(chunks))
	for i, ch := range chunks {
		parts[i] = releasePart{Of: len(chunks), Data: ch}
	}
	return parts, nil
}

func (c *cache) remove(key string) {
	p := strings.Split(key, "/")
	c.touched.key(p)
	c.wakes.touchKey(p)
	switch {
	case p[0] == "hosts" && len(p) == 3 && p[2] == "spec":
		delete(c.hosts, p[1])
		delete(c.leaseGone, p[1])
		c.seenHosts = seenHosts{}
	case p[0] == "hosts" && len(p) == 3 && p[2] == "facts":
		delete(c.facts, p[1])
	case p[0] == "hosts" && len(p) == 3 && p[2] == "lease":
		delete(c.leases, p[1])
		if _, known := c.hosts[p[1]]; known {
			c.leaseGone[p[1]] = time.Now()
		}
		c.seenHosts = seenHosts{}
	case p[0] == "apps" && len(p) == 3:
		if a := c.apps[p[1]]; a != nil {
			a.state = store.Item[record.AppState]{}
			c.dropEmpty(p[1])
		}
	case p[0] == "apps" && len(p) >= 5:
		c.removeRelease(p)
	case p[0] == "assign" && len(p) == 3:
		c.removeAssignment(p[2])
	case p[0] == "observed" && len(p) == 3:
		c.removeObserved(p[2])
	case p[0] == "net" && p[1] == "networks" && len(p) == 3:
		c.touchNetwork(p[2])
		delete(c.networks, p[2])
	case p[0] == "net" && p[1] == "pools" && len(p) == 3:
		delete(c.pools, p[2])
	case p[0] == "net" && p[1] == "published" && len(p) == 3:
		delete(c.published, p[2])
	case p[0] == "net" && p[1] == "hosts" && len(p) == 3:
		delete(c.underlays, p[2])
	case p[0] == "net" && p[1] == "uses" && len(p) == 4:
		delete(c.uses[p[2]], p[3])
		c.touchNetwork(p[2])
	case p[0] == "events" && len(p) == 2:
		delete(c.events, p[1])
	default:
		c.removeFleet(p)
	}
}

func (c *cache) removeRelease(p []string) {
	a := c.apps[p[1]]
	n, err := strconv.Atoi(p[3])
	if a == nil || err != nil || a.releases[n] == nil {
		return
	}
	switch rel := a.releases[n]; p[4] {
	case "status":
		rel.status = store.Item[record.ReleaseStatus]{}
		fallthrough
	default:
		if len(p) == 6 {
			delete(rel.parts, p[5])
		}
		if rel.status.Revision == 0 && len(rel.parts) == 0 {
			delete(a.releases, n)
		}
	}
	c.dropEmpty(p[1])
}

func (c *cache) dropEmpty(app string) {
	if a := c.apps[app]; a != nil && a.state.Revision == 0 && len(a.releases) == 0 {
		delete(c.apps, app)
	}
}

func set[T any](m map[string]T, key string, r store.Raw) {
	if v, err := store.Decode[T](r); err == nil {
		m[key] = v
	}
}

func setItem[T any](m map[string]store.Item[T], key string, r store.Raw) {
	if v, err := store.Decode[T](r); err == nil {
		m[key] = store.Item[T]{Key: r.Key, Value: v, Revision: r.Revision, Created: r.Created}
	}
}
