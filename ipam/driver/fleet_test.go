package driver

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"
	clientv3 "go.etcd.io/etcd/client/v3"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
	"clocker.io/clocker/pkg/store/storetest"
)

// clock is a clock that a test may set forward.
type clock struct {
	mu   sync.Mutex
	skew time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.skew)
}

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.skew += d
}

// fleet is an etcd with the pool that most tests need.
type fleet struct {
	testing.TB
	server *storetest.Server
	st     *store.Store
	clock  *clock
}

func newFleet(t testing.TB) *fleet {
	t.Helper()
	s := storetest.StartServer(t)
	f := &fleet{TB: t, server: s, st: store.New(s.Client(), "test"), clock: &clock{}}
	assert.NilError(t, registry.EnsurePool(t.Context(), f.st, record.Pool{Name: "default", CIDR: "10.208.0.0/12", SubnetBits: 20}))
	return f
}

// network makes a network of the fleet.
func (f *fleet) network(r registry.Request) record.Network {
	f.Helper()
	n, err := registry.Create(f.Context(), f.st, time.Now(), r)
	assert.NilError(f, err)
	return n
}

func (f *fleet) subnet(s string) record.Network {
	f.Helper()
	return f.network(registry.Request{Subnet: netip.MustParsePrefix(s)})
}

// host is a running driver.
type host struct {
	*Driver
	f    *fleet
	dir  string
	stop func()
}

func (f *fleet) config(id string) Config {
	return Config{
		Host: id, Store: store.New(f.server.NewClient(), "test"), Dir: filepath.Join(f.TempDir(), "ipam"),
		Log: slog.New(slog.DiscardHandler), Now: f.clock.now,
		Timeout: 500 * time.Millisecond, Tick: 20 * time.Millisecond,
	}
}

// host starts a driver that ends with the test.
func (f *fleet) host(id string, change ...func(*Config)) *host {
	f.Helper()
	cfg := f.config(id)
	for _, c := range change {
		c(&cfg)
	}
	d, err := Open(cfg)
	assert.NilError(f, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = d.Run(ctx)
	}()
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		_ = d.st.Follow(ctx, d.st.Keys.Net(), d.log, d.Observe)
	}()
	h := &host{Driver: d, f: f, dir: cfg.Dir, stop: sync.OnceFunc(func() {
		cancel()
		<-done
		<-followed
		assert.NilError(f, d.Close())
	})}
	f.Cleanup(h.stop)
	return h
}

// at makes a driver use a directory.
func at(dir string) func(*Config) { return func(c *Config) { c.Dir = dir } }

// crash ends a host as a power loss does, and returns a copy of what it had on
// the disk. It is cut off from etcd before the copy is made, so that nobody
// learns what it does after it; a transaction on its way may still be carried
// out. The caller asks it for nothing more.
func (h *host) crash() string {
	h.f.Helper()
	_ = h.st.Client().Close() // It tells only that it is closed now.
	dir := h.crashed()
	h.stop()
	return dir
}

// crashed copies what a host has on the disk at this moment. Where the host goes
// on working, the copy is older than what etcd and others know of it.
func (h *host) crashed() string {
	h.f.Helper()
	dir := h.f.TempDir()
	b, err := os.ReadFile(filepath.Join(h.dir, "addresses.journal"))
	assert.NilError(h.f, err)
	assert.NilError(h.f, os.WriteFile(filepath.Join(dir, "addresses.journal"), b, 0o600))
	return dir
}

// pool requests a pool that must be given. A call that etcd did not answer in
// the time that a call has, as on a machine with much else to do, is repeated.
func (h *host) pool(r *ipam.RequestPoolRequest) *ipam.RequestPoolResponse {
	h.f.Helper()
	var got *ipam.RequestPoolResponse
	assert.NilError(h.f, patiently(func() (err error) { got, err = h.RequestPool(r); return err }))
	return got
}

func patiently(call func() error) error {
	for end := time.Now().Add(60 * time.Second); ; {
		err := call()
		if err == nil || !strings.Contains(err.Error(), "etcd unreachable") || time.Now().After(end) {
			return err
		}
		<-time.After(20 * time.Millisecond)
	}
}

// join makes the host use a network, as the agent does, and returns the pool.
func (h *host) join(n record.Network) string {
	h.f.Helper()
	return h.pool(&ipam.RequestPoolRequest{AddressSpace: LocalSpace, Pool: n.Subnet, Options: map[string]string{OptNetwork: n.ID}}).PoolID
}

// make makes a network by hand and returns its pool and subnet.
func (h *host) make(subnet string) (pool, got string) {
	h.f.Helper()
	r := h.pool(&ipam.RequestPoolRequest{AddressSpace: LocalSpace, Pool: subnet})
	return r.PoolID, r.Pool
}

func (h *host) request1(pool, address, name string) (string, error) {
	options := map[string]string{}
	if name != "" {
		options[optName] = name
	}
	r, err := h.RequestAddress(&ipam.RequestAddressRequest{PoolID: pool, Address: address, Options: options})
	if err != nil {
		return "", err
	}
	return r.Address, nil
}

// get requests an address that must be given and returns it without its mask.
func (h *host) get(pool, address, name string) string {
	h.f.Helper()
	var s string
	assert.NilError(h.f, patiently(func() (err error) { s, err = h.request1(pool, address, name); return err }))
	return netip.MustParsePrefix(s).Addr().String()
}

func (h *host) put(pool, address string) {
	h.f.Helper()
	assert.NilError(h.f, h.ReleaseAddress(&ipam.ReleaseAddressRequest{PoolID: pool, Address: address}))
}

func (h *host) leave(pool string) {
	h.f.Helper()
	assert.NilError(h.f, h.ReleasePool(&ipam.ReleasePoolRequest{PoolID: pool}))
}

// keys lists the keys under net/ but the guard and the pools.
func (f *fleet) keys() []string {
	f.Helper()
	r, err := f.st.Client().Get(f.Context(), f.st.Keys.Net(), clientv3.WithPrefix(), clientv3.WithKeysOnly())
	assert.NilError(f, err)
	var ks []string
	for _, kv := range r.Kvs {
		if k := string(kv.Key); k != f.st.Keys.NetworkGuard() && !strings.HasPrefix(k, f.st.Keys.Pools()) && !strings.HasPrefix(k, f.st.Keys.Lives()) {
			ks = append(ks, k)
		}
	}
	return ks
}

// wait waits until check has nothing to complain about.
func (f *fleet) wait(check func() error) {
	f.Helper()
	poll.WaitOn(f, func(poll.LogT) poll.Result {
		if err := check(); err != nil {
			return poll.Continue("%v", err)
		}
		return poll.Success()
	}, poll.WithTimeout(3*time.Minute), poll.WithDelay(5*time.Millisecond))
}

// waitEndpoints waits until etcd says exactly that these addresses are held.
func (f *fleet) waitEndpoints(n record.Network, want map[string]record.Endpoint) {
	f.Helper()
	f.wait(func() error {
		items, _, err := store.List[record.Endpoint](f.Context(), f.st, f.st.Keys.Endpoint(n.ID, ""))
		if err != nil {
			return err
		}
		if len(items) != len(want) {
			return fmt.Errorf("%d endpoints, want %d", len(items), len(want))
		}
		for _, it := range items {
			a := it.Key[len(f.st.Keys.Endpoint(n.ID, "")):]
			it.Value.Epoch = 0
			if !reflect.DeepEqual(it.Value, want[a]) {
				return fmt.Errorf("endpoint %s is %+v, want %+v", a, it.Value, want[a])
			}
		}
		return nil
	})
}

// owners maps each claimed block of a network to its host.
func (f *fleet) owners(n record.Network) map[string]string {
	f.Helper()
	items, _, err := store.List[record.Block](f.Context(), f.st, f.st.Keys.NetworkBlocks(n.ID))
	assert.NilError(f, err)
	m := map[string]string{}
	for _, it := range items {
		m[it.Key[len(f.st.Keys.NetworkBlocks(n.ID)):]] = it.Value.Host
	}
	return m
}

// blocks maps each block of a network to its record.
func (f *fleet) blocks(n record.Network) map[string]record.Block {
	f.Helper()
	items, _, err := store.List[record.Block](f.Context(), f.st, f.st.Keys.NetworkBlocks(n.ID))
	assert.NilError(f, err)
	m := map[string]record.Block{}
	for _, it := range items {
		m[it.Key[len(f.st.Keys.NetworkBlocks(n.ID)):]] = it.Value
	}
	return m
}

// bare is the configuration of a driver that never meets etcd.
func (f *fleet) bare(dir string, now func() time.Time) Config {
	return Config{
		Host: "a", Dir: dir, Log: slog.New(slog.DiscardHandler), Now: now, Cooldown: 30 * time.Second,
	}
}
