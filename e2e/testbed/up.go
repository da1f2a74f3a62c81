package testbed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
)

// Up brings a testbed to what the options say and waits until every host is
// ready. What runs already and fits is kept; hosts that are missing or down
// are started; a testbed of another engine, with other links or an older root tree, or the
// leftovers of one, are taken down first. After an error what was made stays,
// for its logs: Down removes it.
func Up(ctx context.Context, o Options) (*Testbed, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	unlock, err := lockFile(bedLock(o.Name))
	if err != nil {
		return nil, err
	}
	defer unlock()
	c, err := prepare(ctx, o.Log, o.Engine, o.Bare > 0)
	if err != nil {
		return nil, err
	}
	s, err := loadState(stateDir(o.Name))
	if err != nil || !s.Hub.Proc.alive() || s.Engine != o.Engine || s.Tree != c.tree || len(s.links()) != o.Links || o.Bare > 0 && s.Bare != c.bare {
		if err == nil {
			o.Log("%s: taking down what does not fit", o.Name)
		}
		if err := tearDown(ctx, o.Name); err != nil {
			return nil, err
		}
		if s, err = found(o, c); err != nil {
			return nil, errors.Join(err, tearDown(context.WithoutCancel(ctx), o.Name))
		}
		o.Log("%s: hub up at %s (%.1fs)", o.Name, s.Hub.Address, time.Since(began).Seconds())
	}
	t, err := attach(s)
	if err != nil {
		return nil, err
	}
	t.log = o.Log
	if err := t.resize(o.Hosts, o.Bare); err != nil {
		return nil, err
	}
	if s.Images != c.images {
		if err := t.refreshImages(ctx, c); err != nil {
			return nil, err
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, h := range t.hosts {
		g.Go(func() error {
			if !h.Running() {
				if err := h.boot(); err != nil {
					return err
				}
			}
			if err := h.WaitReady(gctx); err != nil {
				return err
			}
			o.Log("%s: %s ready at %s (%.1fs)", o.Name, h.Name, h.Address, time.Since(began).Seconds())
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("bring up testbed %s: %w", o.Name, err)
	}
	return t, nil
}

// found makes a testbed without hosts: its keys, its hub, its bridge.
func found(o Options, c *caches) (*state, error) {
	dir := stateDir(o.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make testbed: %w", err)
	}
	s := &state{Name: o.Name, Engine: o.Engine, Tree: c.tree, Bare: c.bare, Tools: c.tools, Registry: c.images, Images: c.images}
	if err := claimSubnets(dir, s, o.Links); err != nil {
		return nil, err
	}
	tls := filepath.Join(dir, "tls")
	if err := os.MkdirAll(tls, 0o700); err != nil {
		return nil, fmt.Errorf("make testbed: %w", err)
	}
	ca, err := newAuthority(tls, o.Name)
	if err != nil {
		return nil, err
	}
	if err := ca.issue(filepath.Join(tls, "client"), "testbed client", nil, nil); err != nil {
		return nil, err
	}
	if err := newSSHKey(filepath.Join(dir, "ssh", "id"), "testbed "+o.Name); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "ssh", "host"), 0o700); err != nil {
		return nil, fmt.Errorf("make testbed: %w", err)
	}
	if err := seedHub(dir, s, ca); err != nil {
		return nil, err
	}
	record := func(p process) error {
		s.Hub.Proc = p
		return s.save(dir)
	}
	wire := func(pid int) error { return wireHub(pid, o.Name, s.links()) }
	if err := boot(dir, hubConfig(dir, s), record, wire); err != nil {
		return nil, err
	}
	return s, nil
}

// claimSubnets picks the testbed's subnets and writes them down before another
// testbed can pick.
func claimSubnets(dir string, s *state, links int) error {
	unlock, err := lockFile(filepath.Join(baseDir(), "subnets.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	beds, err := List()
	if err != nil {
		return err
	}
	var taken []string
	for _, b := range beds {
		if t, err := Open(b); err == nil && b != s.Name {
			taken = append(taken, t.subnets...)
		}
	}
	if s.Subnet, err = freeSubnet(taken); err != nil {
		return err
	}
	if links > 1 {
		if s.SubnetB, err = freeSubnet(append(taken, s.Subnet)); err != nil {
			return err
		}
	}
	s.Hub = node{Name: hubName, Address: octet(s.Subnet, hubOctet).String()}
	return s.save(dir)
}

// List names the testbeds that are there, running or not.
func List() ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(stateDir("*"), "state.json"))
	if err != nil {
		return nil, fmt.Errorf("list testbeds: %w", err)
	}
	var names []string
	for _, p := range paths {
		names = append(names, filepath.Base(filepath.Dir(p)))
	}
	return names, nil
}

// fits reports whether hosts with and without an engine are where they shall
// be.
func (s *state) fits(hosts int) bool {
	for i, n := range s.Hosts {
		if n.Bare != (i >= hosts) {
			return false
		}
	}
	return true
}

// resize writes down the hosts there shall be, makes the disks of new ones and
// ends those too many; the last ones are bare.
func (t *Testbed) resize(hosts, bare int) error {
	ca, err := openAuthority(filepath.Join(t.dir, "tls"))
	if err != nil {
		return err
	}
	err = t.update(func(s *state) error {
		for len(s.Hosts) > hosts+bare || !s.fits(hosts) {
			last := s.Hosts[len(s.Hosts)-1]
			if err := last.Proc.kill(); err != nil {
				return err
			}
			err := errors.Join(removeCgroups(cgroupPath(s.Name, last.Name)), removeDir(hostDisk(t.dir, last.Name)))
			if err != nil {
				return fmt.Errorf("remove host %s: %w", last.Name, err)
			}
			s.Hosts = s.Hosts[:len(s.Hosts)-1]
		}
		known := len(s.Hosts)
		for n := known + 1; n <= hosts+bare; n++ {
			addr := octet(s.linkOf(n).Subnet, byte(firstHostOctet+n-1))
			s.Hosts = append(s.Hosts, node{Name: hostName(n), Address: addr.String(), Bare: n > hosts})
		}
		for _, n := range s.Hosts[known:] {
			if err := seedHost(t.dir, s, n, ca); err != nil {
				return err
			}
		}
		t.hosts = nil
		for _, n := range s.Hosts {
			t.hosts = append(t.hosts, newHost(t, n))
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("resize testbed %s: it is gone: %w", t.name, err)
	}
	return err
}
