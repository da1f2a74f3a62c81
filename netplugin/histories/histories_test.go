package histories

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"gotest.tools/v3/assert"

	addresses "clocker.io/clocker/ipam/driver"
	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/netplugin/nettest"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

var plugin func(args ...string) *exec.Cmd

func TestMain(m *testing.M) { os.Exit(nettest.Main(m, &plugin)) }

// duration is how long the faults go on.
func duration(t *testing.T) time.Duration {
	text := os.Getenv("CLOCKER_HISTORY")
	if text == "" {
		return 12 * time.Second
	}
	d, err := time.ParseDuration(text)
	assert.NilError(t, err)
	return d
}

// crew is several engines' worth of callers on several hosts, and the network
// that they quarrel about.
type crew struct {
	world   *nettest.World
	hosts   []*nettest.Host
	record  record.Network
	clients []*client
	history *history
	// nets are the hosts' Docker networks.
	nets map[*nettest.Host]*atomic.Pointer[nettest.Network]
}

// assemble makes a crew. With bag, containers have its names, and the network
// keeps addresses for names.
func assemble(t *testing.T, seed uint64, subnet string, members, hosts, perHost int, bag *names) *crew {
	t.Helper()
	c := &crew{history: newHistory(), nets: map[*nettest.Host]*atomic.Pointer[nettest.Network]{}}
	if members == 1 {
		c.world = nettest.NewWorld(t, plugin)
	} else {
		c.world = nettest.NewWorldOf(t, members, plugin)
	}
	var err error
	asked := registry.Request{Name: "quarrel", App: "app", Subnet: netip.MustParsePrefix(subnet), Egress: "engine"}
	if bag != nil {
		asked.Options = map[string]string{addresses.OptSticky: "1h"}
	}
	c.record, err = registry.Create(t.Context(), c.world.Store, time.Now(), asked)
	assert.NilError(t, err)
	serial := &ids{last: 1000}
	for range hosts {
		h := c.world.AddHost()
		c.hosts = append(c.hosts, h)
		c.nets[h] = &atomic.Pointer[nettest.Network]{}
		c.nets[h].Store(h.CreateNetwork(&c.record, nil))
		for range perHost {
			id := len(c.clients)
			c.clients = append(c.clients, &client{
				id: id, host: h, net: c.nets[h], history: c.history, serial: serial, http: newHTTP(h), names: bag,
				held: map[string]container{}, random: rand.New(rand.NewPCG(seed, uint64(id))),
			})
		}
	}
	return c
}

// run lets the clients work until stop is set.
func (c *crew) run(want int, stop *atomic.Bool) *sync.WaitGroup {
	var wg sync.WaitGroup
	for _, x := range c.clients {
		wg.Go(func() {
			for !stop.Load() {
				x.step(want)
			}
		})
	}
	return &wg
}

// fault is something that happens to a host, or to etcd, and is over when it
// returns.
type fault struct {
	name string
	do   func(c *crew, h *nettest.Host, r *rand.Rand)
}

func journal(h *nettest.Host) string { return filepath.Join(h.StateDir(), "addresses.journal") }

// torn is what a power loss leaves of a record at the end of a journal.
func torn(h *nettest.Host, r *rand.Rand) error {
	f, err := os.OpenFile(journal(h), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 1+r.IntN(40))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	_, err = f.Write(b)
	return err
}

func a(min, max time.Duration, r *rand.Rand) time.Duration {
	return min + time.Duration(r.Int64N(int64(max-min)))
}

var faults = []fault{
	{"kill", func(_ *crew, h *nettest.Host, r *rand.Rand) {
		h.Kill()
		h.Start()
	}},
	{"pause", func(_ *crew, h *nettest.Host, r *rand.Rand) {
		h.Pause()
		<-time.After(a(100*time.Millisecond, patience+2*time.Second, r))
		h.Resume()
	}},
	{"torn journal", func(c *crew, h *nettest.Host, r *rand.Rand) {
		h.Kill()
		assert.NilError(c.world.T, torn(h, r))
		h.Start()
	}},
	{"lost journal", func(c *crew, h *nettest.Host, r *rand.Rand) {
		h.Kill()
		assert.NilError(c.world.T, os.Remove(journal(h)))
		h.Start()
	}},
	{"lost state", func(c *crew, h *nettest.Host, r *rand.Rand) {
		// Endpoints stay: containers run on. The engine must make its network
		// again, as nobody knows the old one.
		h.Kill()
		assert.NilError(c.world.T, os.RemoveAll(h.StateDir()))
		h.Start()
		c.nets[h].Store(h.CreateNetwork(&c.record, nil))
	}},
	{"etcd member stopped", func(c *crew, _ *nettest.Host, r *rand.Rand) {
		m := c.world.Cluster.Members[r.IntN(3)]
		m.Stop()
		<-time.After(a(200*time.Millisecond, 2*time.Second, r))
		m.Start()
	}},
	{"etcd's majority stopped", func(c *crew, _ *nettest.Host, r *rand.Rand) {
		c.withoutMajority(r, func() { <-time.After(a(200*time.Millisecond, 2*time.Second, r)) })
	}},
	{"etcd's majority stopped, pause", func(c *crew, h *nettest.Host, r *rand.Rand) {
		c.withoutMajority(r, func() {
			h.Pause()
			<-time.After(a(200*time.Millisecond, patience+time.Second, r))
			if r.IntN(2) == 0 {
				h.Resume()
			}
		})
		h.Resume()
	}},
	{"link cut", func(c *crew, h *nettest.Host, r *rand.Rand) {
		assert.NilError(c.world.T, h.Cut())
		<-time.After(a(200*time.Millisecond, 2*time.Second, r))
		assert.NilError(c.world.T, h.Rejoin())
	}},
}

// withoutMajority does something while etcd cannot decide.
func (c *crew) withoutMajority(r *rand.Rand, do func()) {
	order := r.Perm(3)[:2]
	for _, i := range order {
		c.world.Cluster.Members[i].Stop()
	}
	do()
	for _, i := range order {
		c.world.Cluster.Members[i].Restart()
	}
	for _, i := range order {
		c.world.Cluster.Members[i].Ready()
	}
}

// The proof: whatever happens, what the engines see is what one allocator with
// one memory would have answered.
func TestNoAddressIsHeldTwice(t *testing.T) {
	for name, subnet := range map[string]string{"blocks": "10.99.0.0/24", "single addresses": "10.99.0.0/27", "names": "10.99.0.0/27"} {
		t.Run(name, func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			r := rand.New(rand.NewPCG(seed, 0))
			var bag *names
			if name == "names" {
				bag = &names{}
				for i := range 24 {
					bag.put(fmt.Sprint("c", i))
				}
			}
			c := assemble(t, seed, subnet, 3, 3, 4, bag)
			capacity := 1<<(32-netip.MustParsePrefix(subnet).Bits()) - 3
			var stop atomic.Bool
			wg := c.run(capacity/len(c.clients)+1, &stop)
			happened := map[string]int{}
			for end := time.Now().Add(duration(t)); time.Now().Before(end); {
				f := faults[r.IntN(len(faults))]
				h := c.hosts[r.IntN(len(c.hosts))]
				t.Logf("%.1f s: %s, %s", time.Since(c.history.start).Seconds(), f.name, h.ID)
				f.do(c, h, r)
				happened[f.name]++
				<-time.After(a(50*time.Millisecond, 500*time.Millisecond, r))
			}
			stop.Store(true)
			wg.Wait()
			t.Logf("%d operations %v under %v", len(c.history.all), c.history.counts, happened)
			c.check(t)
			c.walk(t)
		})
	}
}

// check asks the checker.
func (c *crew) check(t *testing.T) {
	t.Helper()
	result, info := porcupine.CheckOperationsVerbose(model(), c.history.all, 2*time.Minute)
	if result == porcupine.Ok {
		return
	}
	path := filepath.Join(os.TempDir(), fmt.Sprintf("clocker-history-%d.html", os.Getpid()))
	err := porcupine.VisualizePath(model(), info, path)
	t.Errorf("the history is %s: see %s (%v)", result, path, err)
}

// walk compares what the engines hold with what etcd says once all is well
// again: every address in use is published as its host's, none is of two.
func (c *crew) walk(t *testing.T) {
	t.Helper()
	held := map[string]string{}
	for _, x := range c.clients {
		for a := range x.held {
			if other, twice := held[a]; twice {
				t.Errorf("%s is held on %s and once more on %s", a, other, x.host.ID)
			}
			held[a] = x.host.ID
		}
	}
	c.hosts[0].Eventually(30*time.Second, "etcd knows what is held", func() error {
		items, _, err := store.List[record.Endpoint](t.Context(), c.world.Store, c.world.Store.Keys.Endpoint(c.record.ID, ""))
		if err != nil {
			return err
		}
		published := map[string]string{}
		for _, it := range items {
			published[filepath.Base(it.Key)] = it.Value.Host
		}
		for a, host := range held {
			if published[a] != host {
				return fmt.Errorf("%s is held on %s, etcd says %q", a, host, published[a])
			}
		}
		return nil
	})
	findings, err := registry.Audit(t.Context(), c.world.Store)
	assert.NilError(t, err)
	for _, f := range findings {
		t.Errorf("audit: %s %s: %s", f.Part, f.Subject, f.Text)
	}
}

// Given back, all of a network can be had again: nothing is lost for good.
func TestNothingIsLostForGood(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	c := assemble(t, seed, "10.99.0.0/26", 3, 2, 3, nil)
	var stop atomic.Bool
	wg := c.run(9, &stop)
	for range 4 {
		// Faults whose answers are not lost.
		name := []string{"torn journal", "etcd member stopped", "link cut"}[r.IntN(3)]
		i := slices.IndexFunc(faults, func(f fault) bool { return f.name == name })
		faults[i].do(c, c.hosts[r.IntN(2)], r)
	}
	stop.Store(true)
	wg.Wait()
	for _, x := range c.clients {
		for len(x.held) > 0 {
			for a := range x.held {
				x.give(a)
				break
			}
		}
	}
	// What was just given back rests for half a minute; what was asked for and
	// never answered is found after a minute.
	got := map[string]bool{}
	c.hosts[0].Eventually(3*time.Minute, "every address can be had", func() error {
		for _, x := range []*client{c.clients[0], c.clients[3]} {
			for {
				a, ok := x.take("")
				if !ok {
					break
				}
				assert.Assert(t, !got[a], "%s twice", a)
				got[a] = true
			}
		}
		if len(got) != 61 {
			return fmt.Errorf("%d of 61 addresses", len(got))
		}
		return nil
	})
}

// An etcd that comes back from an old copy has forgotten which host owns which
// block. Hosts remember, and none may take another's.
func TestRestoredEtcdGivesNothingTwice(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c := assemble(t, seed, "10.99.0.0/24", 1, 3, 2, nil)
	etcd := c.world.Etcd
	etcd.Stop()
	restore := etcd.Save() // before any block is owned
	etcd.Start()
	var stop atomic.Bool
	wg := c.run(12, &stop)
	<-time.After(3 * time.Second)
	etcd.Stop()
	restore()
	etcd.Start()
	<-time.After(5 * time.Second)
	stop.Store(true)
	wg.Wait()
	t.Logf("%d operations %v", len(c.history.all), c.history.counts)
	c.check(t)
	c.walk(t)
}
