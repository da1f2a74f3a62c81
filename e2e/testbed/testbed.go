package testbed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Testbed is a set of hosts on one link, or on two with a router between. Its methods may be called from
// several goroutines, and several processes may have the same one open.
type Testbed struct {
	name   string
	dir    string
	subnet string
	// subnets are those of all links, subnet first.
	subnets []string
	engine  string
	hub     netip.Addr
	hosts   []*Host
	log     func(string, ...any)
}

// Open attaches to a testbed that an Up, of this or another process, made.
func Open(name string) (*Testbed, error) {
	if name == "" {
		name = DefaultName
	}
	s, err := loadState(stateDir(name))
	if err != nil {
		return nil, fmt.Errorf("open testbed %s: %w", name, err)
	}
	return attach(s)
}

func attach(s *state) (*Testbed, error) {
	hub, err := netip.ParseAddr(s.Hub.Address)
	if err != nil {
		return nil, fmt.Errorf("open testbed %s: %w", s.Name, err)
	}
	t := &Testbed{
		name: s.Name, dir: stateDir(s.Name), subnet: s.Subnet, engine: s.Engine, hub: hub,
		log: func(string, ...any) {},
	}
	for _, l := range s.links() {
		t.subnets = append(t.subnets, l.Subnet)
	}
	for _, n := range s.Hosts {
		t.hosts = append(t.hosts, newHost(t, n))
	}
	return t, nil
}

// Name is the testbed's name.
func (t *Testbed) Name() string { return t.name }

// Engine is the major version of the hosts' engine, as in Options.
func (t *Testbed) Engine() string { return t.engine }

// Dir is where the testbed keeps its state: keys, certificates, logs, disks.
func (t *Testbed) Dir() string { return t.dir }

// Subnet is the network of the first link, a /24 in CIDR form.
func (t *Testbed) Subnet() string { return t.subnet }

// Subnets are the networks of all links, that of h1 first.
func (t *Testbed) Subnets() []string { return slices.Clone(t.subnets) }

// Gateway is this machine's own address on the testbed's bridge: where the
// hosts reach a server that a test runs.
func (t *Testbed) Gateway() string { return octet(t.subnet, machineOctet).String() }

// Registry is the address, ip:port, of the testbed's registry. It speaks plain
// HTTP; the hosts have it as mirror of Docker Hub and as insecure registry.
func (t *Testbed) Registry() string {
	return netip.AddrPortFrom(t.hub, registryPort).String()
}

// Hosts are all hosts, h1 first, whether they are up or not.
func (t *Testbed) Hosts() []*Host { return slices.Clone(t.hosts) }

// Host is the host called name, or nil.
func (t *Testbed) Host(name string) *Host {
	for _, h := range t.hosts {
		if h.Name == name {
			return h
		}
	}
	return nil
}

// clientCerts is where the tests' client certificate is.
func (t *Testbed) clientCerts() string { return filepath.Join(t.dir, "tls", "client") }

// update changes the testbed's state, alone among all processes.
func (t *Testbed) update(f func(*state) error) error {
	unlock, err := lockFile(stateLock(t.name))
	if err != nil {
		return err
	}
	defer unlock()
	s, err := loadState(t.dir)
	if err != nil {
		return err
	}
	if err := f(s); err != nil {
		return err
	}
	return s.save(t.dir)
}

// Down ends a testbed and removes everything of it but the caches. It is no
// error when there is none, or only half of one.
func Down(ctx context.Context, name string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("take down testbed: %q is no name", name)
	}
	if os.Geteuid() != 0 {
		return errNotRoot
	}
	unlock, err := lockFile(bedLock(name))
	if err != nil {
		return err
	}
	defer unlock()
	if err := tearDown(ctx, name); err != nil {
		return err
	}
	return os.Remove(bedLock(name))
}

// Down is Down of this testbed.
func (t *Testbed) Down(ctx context.Context) error { return Down(ctx, t.name) }

// tearDown needs the bed's lock.
func tearDown(ctx context.Context, name string) error {
	dir := stateDir(name)
	s, err := loadState(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s = &state{Name: name}
	case err != nil:
		return fmt.Errorf("take down testbed %s: %w", name, err)
	}
	g, _ := errgroup.WithContext(ctx)
	for _, n := range append(slices.Clone(s.Hosts), s.Hub) {
		g.Go(n.Proc.kill)
	}
	err = g.Wait()
	// Cgroups also know what a half-made testbed did not write down.
	err = errors.Join(err, removeCgroups(cgroupPath(name, "")), removeLink(name))
	if err != nil {
		return fmt.Errorf("take down testbed %s: %w", name, err)
	}
	unlock, err := lockFile(stateLock(name)) // no update writes the state anew meanwhile
	if err != nil {
		return err
	}
	defer unlock()
	if err := errors.Join(removeDir(dir), os.Remove(stateLock(name))); err != nil {
		return fmt.Errorf("take down testbed %s: %w", name, err)
	}
	return nil
}

// removeDir removes a directory of this package's own, unless something is
// mounted in it as this process sees it, which is never this package's doing.
func removeDir(dir string) error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			return fmt.Errorf("remove %s: %s is a mount: %w", dir, f[4], unix.EBUSY)
		}
	}
	return os.RemoveAll(dir)
}
