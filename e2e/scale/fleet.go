package scale

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"clocker.io/clocker/pkg/agent"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/fleet/controllerconfig"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

const fleetName = "scale"

// Options say how large the fleet is.
type Options struct {
	// Hosts is how many hosts there are; Containers how many run in all.
	Hosts, Containers int
	// Applications is how many applications they are of.
	Applications int
	// AtOnce is how many of them are deployed at the same time; 0 means all.
	AtOnce int
	// Latency is what making, starting and stopping a container takes each.
	Latency time.Duration
	// LeaseSeconds is how long a host counts as alive after its agent was last
	// heard of; 0 means as long as with real agents. Here they share a few
	// processors with each other and with etcd, and come late all at once.
	LeaseSeconds int64
	// Followers is how many watches there are of the names of the fleet, as
	// each real host has one.
	Followers int
	// Dir is an empty directory for everything.
	Dir string
	// Environment is for controllers, beside this process's own.
	Environment []string
}

// fleet is a fleet that runs.
type fleet struct {
	o           Options
	etcd        *process
	controllers []*member
	dial        func() (*clientv3.Client, error)
	client      *clientv3.Client
	store       *store.Store
	api         *api.Client
	tally       *tally
	log         *os.File

	stopAll context.CancelFunc
	running sync.WaitGroup
	hosts   []*simHost
}

// member is one controller.
type member struct {
	*process
	url string
	api *api.Client
}

type simHost struct {
	id   string
	stop context.CancelFunc
	done chan struct{}
}

func file(dir, name string) string { return filepath.Join(dir, name) }

// pairOf makes a key and its certificate and writes them.
func pairOf(certFile, keyFile string, issue func(csr []byte) ([]byte, error)) error {
	key, csr, err := ca.NewKey()
	if err != nil {
		return err
	}
	cert, err := issue(csr)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(certFile, cert, 0o600), os.WriteFile(keyFile, key, 0o600))
}

// freeAddress is one of the loopback that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find port: %w", err)
	}
	defer l.Close() //nolint:errcheck // nothing was written
	return l.Addr().String(), nil
}

// up starts etcd, two controllers, and every host's agent.
func up(ctx context.Context, o Options) (f *fleet, err error) {
	ctx, cancel := context.WithCancel(ctx)
	f = &fleet{o: o, stopAll: cancel}
	defer func() {
		if err != nil {
			f.down()
		}
	}()
	if f.log, err = os.Create(file(o.Dir, "log")); err != nil {
		return f, err
	}
	authority, err := ca.Create(fleetName, time.Now)
	if err != nil {
		return f, err
	}
	sans := []string{"127.0.0.1", "localhost"}
	server := func(csr []byte) ([]byte, error) { return authority.IssueController(csr, sans) }
	trusted := file(o.Dir, "ca.pem")
	err = errors.Join(
		os.WriteFile(trusted, authority.Certificate(), 0o600),
		pairOf(file(o.Dir, "etcd.pem"), file(o.Dir, "etcd-key.pem"), server),
		pairOf(file(o.Dir, "root.pem"), file(o.Dir, "root-key.pem"), authority.IssueRoot),
		pairOf(file(o.Dir, "user.pem"), file(o.Dir, "user-key.pem"), func(csr []byte) ([]byte, error) { return authority.IssueUser(csr, "ada") }),
	)
	if err != nil {
		return f, err
	}
	address, err := f.startEtcd(trusted)
	if err != nil {
		return f, err
	}
	mutual, err := f.tls(authority.Pool(), "root")
	if err != nil {
		return f, err
	}
	f.dial = func() (*clientv3.Client, error) {
		c, err := clientv3.New(clientv3.Config{
			Endpoints: []string{address}, TLS: mutual, Logger: zap.NewNop(), DialTimeout: 30 * time.Second,
		})
		if err != nil {
			return nil, fmt.Errorf("connect etcd: %w", err)
		}
		return c, nil
	}
	if f.client, err = f.dial(); err != nil {
		return f, err
	}
	f.store = store.New(f.client, fleetName)
	for i := range 2 {
		if err := f.startController(i, authority, server, address); err != nil {
			return f, err
		}
	}
	if err := f.connectAPI(authority.Pool()); err != nil {
		return f, err
	}
	f.tally = newTally(f.store)
	f.running.Go(func() { _ = f.store.Follow(ctx, f.store.Keys.Prefix(), slog.New(slog.DiscardHandler), f.tally.apply) }) // ctx's error
	err = f.startHosts(ctx)
	return f, err
}

func (f *fleet) startEtcd(trusted string) (string, error) {
	client, err := freeAddress()
	if err != nil {
		return "", err
	}
	peer, err := freeAddress()
	if err != nil {
		return "", err
	}
	f.etcd, err = start(role{Etcd: &etcdRole{
		Dir: file(f.o.Dir, "etcd"), Client: "https://" + client, Peer: "https://" + peer,
		Cert: file(f.o.Dir, "etcd.pem"), Key: file(f.o.Dir, "etcd-key.pem"), Trusted: trusted,
	}}, f.log)
	return "https://" + client, err
}

func (f *fleet) tls(pool *x509.CertPool, who string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(file(f.o.Dir, who+".pem"), file(f.o.Dir, who+"-key.pem"))
	if err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, MinVersion: tls.VersionTLS13}, nil
}

// startController writes what init would, and starts a controller on it.
func (f *fleet) startController(number int, authority *ca.Authority, server func([]byte) ([]byte, error), etcd string) error {
	listen, err := freeAddress()
	if err != nil {
		return err
	}
	port := 0
	if _, p, err := net.SplitHostPort(listen); err == nil {
		_, _ = fmt.Sscan(p, &port) // it is a number
	}
	dir := file(f.o.Dir, fmt.Sprintf("controller%d", number+1))
	config, data := file(dir, "config"), file(dir, "data")
	if err := errors.Join(os.MkdirAll(config, 0o700), os.MkdirAll(data, 0o700)); err != nil {
		return err
	}
	sealed, err := authority.Seal()
	if err != nil {
		return err
	}
	text, err := json.Marshal(controllerconfig.Config{
		Fleet: fleetName, Name: fmt.Sprintf("c%d", number+1), Advertise: "127.0.0.1", APIPort: port,
		Etcd: []string{etcd}, SANs: []string{"127.0.0.1"}, CreatedAt: time.Now(),
	})
	if err != nil {
		return err
	}
	err = errors.Join(
		sealed.Save(config, data),
		os.WriteFile(file(config, controllerconfig.File), text, 0o600),
		pairOf(file(config, controllerconfig.CertFile), file(config, controllerconfig.KeyFile), server),
		pairOf(file(config, controllerconfig.RootCertFile), file(config, controllerconfig.RootKeyFile), authority.IssueRoot),
	)
	if err != nil {
		return err
	}
	p, err := start(role{Controller: &controllerRole{
		Config: config, Data: data, Listen: listen, Etcd: etcd,
		Cert: file(f.o.Dir, "root.pem"), Key: file(f.o.Dir, "root-key.pem"), Trusted: file(f.o.Dir, "ca.pem"),
	}}, f.log, f.o.Environment...)
	if err != nil {
		return err
	}
	f.controllers = append(f.controllers, &member{process: p, url: "https://" + listen})
	return nil
}

func (f *fleet) connectAPI(pool *x509.CertPool) error {
	mutual, err := f.tls(pool, "user")
	if err != nil {
		return err
	}
	var urls []string
	for _, m := range f.controllers {
		m.api = api.NewClient([]string{m.url}, mutual)
		urls = append(urls, m.url)
	}
	f.api = api.NewClient(urls, mutual)
	return nil
}

// startHosts puts the hosts into etcd, as registering leaves them, and starts
// an agent for each.
func (f *fleet) startHosts(ctx context.Context) error {
	if err := f.awaitLeader(ctx); err != nil {
		return err
	}
	for i := range f.o.Hosts {
		id := fmt.Sprintf("h%05d", i+1)
		address := fmt.Sprintf("198.%d.%d.%d", 18+i>>16, i>>8&255, i&255)
		k := f.store.Keys
		_, err := f.store.Txn().
			Put(k.HostSpec(id), record.Host{ID: id, Name: id, Address: address, State: record.HostActive, Labels: map[string]string{"zone": fmt.Sprintf("z%d", i%3)}}).
			Put(k.HostFacts(id), record.HostFacts{AgentVersion: "simulated", EngineVersion: "28.0.0", OS: "linux", Architecture: "amd64", CPUs: 16, MemoryBytes: 64 << 30, At: time.Now()}).
			Put(k.Underlay(id), record.Underlay{Host: id, Address: address, MTU: 1500}).Commit(ctx)
		if err != nil {
			return err
		}
		hostCtx, stop := context.WithCancel(ctx)
		h := &simHost{id: id, stop: stop, done: make(chan struct{})}
		f.hosts = append(f.hosts, h)
		client, err := f.dial()
		if err != nil {
			return err
		}
		go func() {
			defer close(h.done)
			defer client.Close() //nolint:errcheck // it ends here
			agent.Simulate(hostCtx, agent.Simulation{
				Fleet: fleetName, Host: id, Store: store.New(client, fleetName), Engine: newEngine(i, f.o.Latency),
				Boot: fmt.Sprint(i), Log: slog.New(slog.DiscardHandler), Now: time.Now, LeaseSeconds: f.o.LeaseSeconds,
			})
		}()
	}
	for range f.o.Followers {
		f.running.Go(func() {
			_ = f.store.Follow(ctx, f.store.Keys.Names(), slog.New(slog.DiscardHandler), func(store.Change) {})
		}) // ctx's error
	}
	return f.tally.await(ctx, "every agent there", func(t *tally) bool { return len(t.leases) == f.o.Hosts })
}

// awaitLeader waits until a controller leads.
func (f *fleet) awaitLeader(ctx context.Context) error {
	_, err := f.leader(ctx)
	return err
}

// leader waits until a controller that runs leads, and returns it.
func (f *fleet) leader(ctx context.Context) (*member, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	every := time.NewTicker(20 * time.Millisecond)
	defer every.Stop()
	for {
		for _, m := range f.controllers {
			ask, done := context.WithTimeout(ctx, 5*time.Second)
			i, err := m.api.Info(ask)
			done()
			if err == nil && i.Leader == m.url {
				return m, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for a leading controller (see %s): %w", f.log.Name(), ctx.Err())
		case <-every.C:
		}
	}
}

// down ends everything.
func (f *fleet) down() {
	f.stopAll()
	for _, h := range f.hosts {
		<-h.done
	}
	f.running.Wait()
	for _, m := range f.controllers {
		m.kill()
	}
	if f.client != nil {
		_ = f.client.Close() // it ends here
	}
	if f.etcd != nil {
		f.etcd.kill()
	}
	if f.log != nil {
		_ = f.log.Close() // only others write to it
	}
}
