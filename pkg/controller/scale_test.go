package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/fleet/controllerconfig"
	"clocker.io/clocker/pkg/location"
	"clocker.io/clocker/pkg/location/locationtest"
	"clocker.io/clocker/pkg/placement"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
	"clocker.io/clocker/pkg/store/storetest"

	clientv3 "go.etcd.io/etcd/client/v3"
	"gotest.tools/v3/assert"
)

// yard plays the machines behind a provider: what is adopted there becomes a
// host in etcd, as its agent would make it. It has no engine, and counts.
type yard struct {
	t     *testing.T
	s     *store.Store
	cloud *locationtest.Cloud

	mu      sync.Mutex
	refuse  map[string]string // by endpoint: why it cannot be adopted
	working map[string]bool
	clashes int
	// labels are what hosts really have, whatever was said of them.
	labels map[string]string
	ports  []string
	// step is told what is about to be done, and what was; an error means
	// that who does it has died.
	step func(at string) error
}

func newYard(t *testing.T, s *store.Store) *yard {
	return &yard{t: t, s: s, cloud: locationtest.NewCloud(), refuse: map[string]string{}, working: map[string]bool{}}
}

func (y *yard) at(what string) error {
	y.mu.Lock()
	f := y.step
	y.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(what)
}

func (y *yard) begin(endpoint string) func() {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.working[endpoint] {
		y.clashes++
	}
	y.working[endpoint] = true
	return func() {
		y.mu.Lock()
		defer y.mu.Unlock()
		delete(y.working, endpoint)
	}
}

// hostID is the id that an endpoint's host has, whoever adopts it.
func hostID(endpoint string) string {
	return strings.NewReplacer("://", "-", "@", "-", "/", "-", ":", "-").Replace(endpoint)
}

func (y *yard) Adopt(ctx context.Context, m adoption) (string, error) {
	defer y.begin(m.machine.Endpoint)()
	if err := y.at("before adopt"); err != nil {
		return "", err
	}
	y.mu.Lock()
	why := y.refuse[m.machine.Endpoint]
	labels, ports := y.labels, y.ports
	y.mu.Unlock()
	if why != "" {
		return "", errors.New(why)
	}
	if labels == nil {
		labels = m.labels
	}
	id := hostID(m.machine.Endpoint)
	k := y.s.Keys
	name := m.machine.Name
	if name == "" {
		name = id
	}
	address := fmt.Sprintf("192.0.2.%d", 100+len(id)%100)
	for {
		was, err := store.Get[record.Host](ctx, y.s, k.HostSpec(id))
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return "", err
		}
		// What was decided about the host stays decided, as in the registration.
		h := record.Host{ID: id, Name: name, Endpoint: m.machine.Endpoint, Address: address, Labels: labels, State: record.HostActive, AddedAt: time.Now()}
		h.Provider, h.Machine = was.Value.Provider, was.Value.Machine
		_, err = y.s.Txn().Unchanged(k.HostSpec(id), was.Revision).Put(k.HostSpec(id), h).
			Put(k.HostFacts(id), record.HostFacts{CPUs: 2, MemoryBytes: 4 << 30, Listening: ports, Architecture: "x86_64"}).
			Put(k.HostLease(id), record.HostLease{}).
			Put(k.Underlay(id), record.Underlay{Host: id, Address: address, MTU: 1500}).Commit(ctx)
		if err == nil {
			break
		} else if !errors.Is(err, store.ErrConflict) {
			return "", err
		}
	}
	if err := y.at("after adopt"); err != nil {
		return "", err
	}
	return id, nil
}

func (y *yard) Clear(ctx context.Context, m adoption) error {
	defer y.begin(m.machine.Endpoint)()
	if err := y.at("before clear"); err != nil {
		return err
	}
	id, k := hostID(m.machine.Endpoint), y.s.Keys
	if _, err := y.s.Txn().DeletePrefix(k.Hosts() + id + "/").Delete(k.Underlay(id)).Commit(ctx); err != nil {
		return err
	}
	return y.at("after clear")
}

// scaleController starts a controller whose providers of kind "cloud" are the
// yard's, and which adopts there.
func scaleController(t *testing.T, client *clientv3.Client, fleet string, y *yard) (*Controller, func()) {
	t.Helper()
	authority, err := ca.Create(fleet, time.Now)
	assert.NilError(t, err)
	sealed, err := authority.Seal()
	assert.NilError(t, err)
	dir := t.TempDir()
	assert.NilError(t, sealed.Save(dir, dir))
	c := &Controller{
		fleet: fleet, url: "https://c", config: &controllerconfig.Config{Name: "c"}, configDir: dir,
		etcd: etcdAccess{client: client, kind: "external"}, authority: authority,
		store: store.New(client, fleet), log: slog.New(slog.DiscardHandler), now: time.Now,
		exhaustedEvery: 50 * time.Millisecond,
	}
	c.scale.adopter, c.scale.every = y, 10*time.Millisecond
	c.scale.open = func(p record.Provider) (location.Provider, error) {
		if p.Kind == "cloud" {
			return y.cloud, nil
		}
		return location.Open(p)
	}
	c.cache = newCache(fleet)
	assert.NilError(t, c.bootstrap(t.Context()))
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { c.store.Follow(ctx, c.store.Keys.Prefix(), c.log, c.cache.apply) }) //nolint:errcheck // ctx's error
	running.Go(func() { c.elect(ctx) })                                                     //nolint:errcheck // nil
	stop := sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(stop)
	c.awaitLead(t)
	return c, stop
}

// stand puts a host into the fleet that a user added.
func (y *yard) stand(id string, labels map[string]string) {
	k := y.s.Keys
	_, err := y.s.Txn().Put(k.HostSpec(id), record.Host{ID: id, Name: id, Address: "192.0.2.9", State: record.HostActive, Labels: labels}).
		Put(k.HostFacts(id), record.HostFacts{CPUs: 2, MemoryBytes: 4 << 30, Architecture: "x86_64"}).Put(k.HostLease(id), record.HostLease{}).
		Put(k.Underlay(id), record.Underlay{Host: id, Address: "192.0.2.9", MTU: 1500}).Commit(y.t.Context())
	assert.NilError(y.t, err)
}

func (y *yard) put(key string, value any) {
	_, err := y.s.Txn().Put(key, value).Commit(y.t.Context())
	assert.NilError(y.t, err)
}

func (y *yard) machines() []record.Machine {
	items, _, err := store.List[record.Machine](y.t.Context(), y.s, y.s.Keys.Machines())
	assert.NilError(y.t, err)
	var out []record.Machine
	for _, it := range items {
		out = append(out, it.Value)
	}
	return out
}

func (y *yard) hosts() map[string]record.Host {
	items, _, err := store.List[record.Host](y.t.Context(), y.s, y.s.Keys.Hosts())
	assert.NilError(y.t, err)
	out := map[string]record.Host{}
	for _, it := range items {
		if strings.HasSuffix(it.Key, "/spec") {
			out[it.Value.ID] = it.Value
		}
	}
	return out
}

func (y *yard) in(state string, n int) bool {
	ms, have := y.machines(), 0
	for _, m := range ms {
		if m.State == state {
			have++
		}
	}
	return have == n && len(ms) == n
}

// The controller dies between any two steps of asking for a machine, making
// it a host, and giving it back: no machine is leaked, none is made twice.
func TestControllerDiesBetweenAnyTwoSteps(t *testing.T) {
	client := storetest.Start(t)
	// The first one dies nowhere, and says how many steps there are.
	for _, polls := range []int{-1, 0} {
		total := surviveDeath(t, client, fmt.Sprintf("polls%d", polls+1), polls, 0)
		for kill := 1; kill <= total; kill++ {
			name := fmt.Sprintf("polls%d-kill%d", polls+1, kill)
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				surviveDeath(t, client, name, polls, kill)
			})
		}
	}
}

// surviveDeath grows and shrinks a fleet by one machine; the controller dies
// at the step of that number and another takes over. It returns how many steps
// there were.
func surviveDeath(t *testing.T, client *clientv3.Client, fleet string, polls, kill int) int {
	y := newYard(t, store.New(client, fleet))
	y.cloud.Polls = polls
	k := y.s.Keys
	y.stand("h1", nil)
	y.put(k.Provider("cloud"), record.Provider{Name: "cloud", Kind: "cloud"})
	y.put(k.HeadroomPolicy(), record.HeadroomPolicy{MinHosts: 2, MaxHosts: 2})

	var mu sync.Mutex
	n := 0
	dies, dead := make(chan struct{}), make(chan struct{})
	step := func(at string) error {
		mu.Lock()
		n++
		now := n == kill
		mu.Unlock()
		if !now {
			return nil
		}
		close(dies)
		<-dead // nobody hears what comes of it
		return fmt.Errorf("the controller dies %s", at)
	}
	y.step, y.cloud.Hook = step, step
	c, stop := scaleController(t, client, fleet, y)
	takeOver := func() {
		stop()
		close(dead)
		c, stop = scaleController(t, client, fleet, y)
	}
	died := false
	reach := func(done func() bool) {
		t.Helper()
		await(t, func() bool {
			select {
			case <-dies:
				if !died {
					died = true
					takeOver()
				}
			default:
			}
			return done()
		})
	}
	reach(func() bool { return y.in(record.MachineHost, 1) && len(y.hosts()) == 2 })
	made, perTag := y.cloud.Made()
	assert.Equal(t, made, 1)
	assert.Equal(t, perTag, 1)
	m := y.machines()[0]
	h := y.hosts()[m.Host]
	assert.Equal(t, h.Machine, m.ID)
	assert.Equal(t, h.Provider, "cloud")

	y.put(k.HeadroomPolicy(), record.HeadroomPolicy{MinHosts: 1, RemoveEmpty: true, DownDelay: -1})
	reach(func() bool { return len(y.machines()) == 0 && len(y.hosts()) == 1 })
	assert.Equal(t, len(y.cloud.Alive()), 0)
	made, _ = y.cloud.Made()
	assert.Equal(t, made, 1)
	assert.Equal(t, y.clashes, 0)
	assert.Assert(t, kill == 0 || died || kill > n)
	_ = c
	return n
}

// list is a provider of standby machines.
func list(name string, endpoints ...string) record.Provider {
	p := record.Provider{Name: name, Kind: location.KindStandby}
	for _, e := range endpoints {
		p.Machines = append(p.Machines, record.ProviderMachine{Endpoint: e, HostKey: "ssh-ed25519 AAAA"})
	}
	return p
}

func TestOneFailingMachineBlocksNoOther(t *testing.T) {
	client := storetest.Start(t)
	y := newYard(t, store.New(client, "f"))
	k := y.s.Keys
	y.stand("h1", nil)
	y.refuse["ssh://bad"] = "connection refused"
	y.put(k.Provider("pool"), list("pool", "ssh://bad", "ssh://good", "ssh://spare"))
	y.put(k.HeadroomPolicy(), record.HeadroomPolicy{MinHosts: 2, MaxHosts: 3})
	_, _ = scaleController(t, client, "f", y)
	await(t, func() bool { return y.hosts()[hostID("ssh://good")].Machine != "" })
	var bad record.Machine
	await(t, func() bool { // They are adopted side by side.
		for _, m := range y.machines() {
			if m.Handle == "ssh://bad" {
				bad = m
			}
		}
		return bad.Attempts >= 1
	})
	assert.Equal(t, bad.State, record.MachineAdopting)
	assert.Equal(t, bad.Error, "connection refused")
	// It may yet come: the maximum counts it.
	assert.Equal(t, len(y.machines()), 2)
}

func TestAUserLetsMachinesGo(t *testing.T) {
	client := storetest.Start(t)
	y := newYard(t, store.New(client, "f"))
	k := y.s.Keys
	y.stand("h1", nil)
	failed := record.Machine{ID: "f1", Provider: "pool", Handle: "ssh://a", Offer: "ssh://a", State: record.MachineFailed, Error: "bad"}
	y.put(k.Provider("pool"), list("pool", "ssh://a", "ssh://b"))
	y.put(k.Machine("f1"), failed)
	y.put(k.HeadroomPolicy(), record.HeadroomPolicy{MinHosts: 2})
	c, _ := scaleController(t, client, "f", y)
	// The host is there before its machine is told to be one.
	await(t, func() bool { p, _ := c.Provider(t.Context(), "pool"); return p.Hosts == 1 })
	assert.Assert(t, y.hosts()[hostID("ssh://b")].Machine != "")
	p, err := c.Provider(t.Context(), "pool")
	assert.NilError(t, err)
	assert.Equal(t, p.Failed, 1)
	assert.Equal(t, p.Free, 0)
	assert.ErrorContains(t, c.RemoveProvider(t.Context(), "pool"), "while machines of it are in use")

	y.put(k.HeadroomPolicy(), record.HeadroomPolicy{})
	await(t, func() bool { p := policyNow(c); return p.MinHosts == 0 })
	_, err = c.ReleaseMachine(t.Context(), "ssh://a")
	assert.NilError(t, err)
	await(t, func() bool { p, _ := c.Provider(t.Context(), "pool"); return p.Failed == 0 && p.Free == 1 })
	_, err = c.ReleaseMachine(t.Context(), hostID("ssh://b"))
	assert.NilError(t, err)
	await(t, func() bool { return len(y.machines()) == 0 && len(y.hosts()) == 1 })
	await(t, func() bool { p, _ := c.Provider(t.Context(), "pool"); return p.Free == 2 })
	_, err = c.ReleaseMachine(t.Context(), "ssh://b")
	assert.ErrorContains(t, err, "no provider was asked for a machine")
	assert.NilError(t, c.RemoveProvider(t.Context(), "pool"))
	assert.ErrorContains(t, c.RemoveProvider(t.Context(), "pool"), "no provider pool")
}

func policyNow(c *Controller) record.HeadroomPolicy {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	return c.cache.policies.headroom.Value
}

func TestDeployWaitsForItsHost(t *testing.T) {
	client := storetest.Start(t)
	y := newYard(t, store.New(client, "f"))
	k := y.s.Keys
	y.stand("h1", nil)
	c, _ := scaleController(t, client, "f", y)
	pinned := []placement.Request{{App: "a", Service: "web", Slot: 1, Host: "big"}}
	said := []string{}
	say := func(text string) { said = append(said, text) }
	// Without a provider there is nothing to wait for, and nothing to say.
	again, why := c.awaitHost(t.Context(), pinned, time.Now(), say)
	assert.Assert(t, !again && why == "")

	p := list("pool", "ssh://a", "ssh://b")
	p.Machines[1].Name = "big"
	y.put(k.Provider("pool"), p)
	await(t, c.hasProviders)
	again, why = c.awaitHost(t.Context(), pinned, time.Now(), say)
	assert.Assert(t, again, why)
	assert.DeepEqual(t, said, []string{"waiting for a host: machine big is asked for", "waiting for a host: machine big is on its way"}[:len(said)])
	assert.Assert(t, len(said) > 0)
	assert.Assert(t, c.findHost("big") != "")
	// What no machine could take is told at once.
	none := []placement.Request{{App: "a", Service: "other", Slot: 1, Host: "elsewhere"}}
	again, why = c.awaitHost(t.Context(), none, time.Now(), say)
	assert.Assert(t, !again)
	assert.Equal(t, why, "no host is asked for, as none could take it: ssh://a: the service is pinned to host elsewhere")
	assert.Equal(t, len(y.machines()), 1)
	// Patience ends.
	y.mu.Lock()
	y.refuse["ssh://a"] = "connection refused"
	y.mu.Unlock()
	late := []placement.Request{{App: "a", Service: "third", Slot: 1, Host: "ssh://a"}}
	again, why = c.awaitHost(t.Context(), late, time.Now().Add(2*time.Second-hostPatience), say)
	assert.Assert(t, !again)
	assert.Assert(t, strings.HasPrefix(why, "no host came within 5m0s") || strings.HasPrefix(why, "no host is asked for"), why)
}
