package testbed

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// state is what a testbed writes down about itself, so that any later process
// can find, change and end it. It is changed under the bed's state lock only.
type state struct {
	Name     string `json:"name"`
	Engine   string `json:"engine"`
	Subnet   string `json:"subnet"`            // a /24 in CIDR form
	SubnetB  string `json:"subnetB,omitempty"` // that of the second link, if there is one
	Tree     string `json:"tree"`              // the root tree the hosts are made from
	Bare     string `json:"bare,omitempty"`    // that of hosts without an engine
	Tools    string `json:"tools"`             // the root tree the hub is made from
	Registry string `json:"registry"`          // the seed of the hub's registry
	Images   string `json:"images"`            // the seed whose images it has by now
	Hub      node   `json:"hub"`
	Hosts    []node `json:"hosts"`
	// Cuts are the pairs of names that no traffic passes between; the second
	// is "" where the first has its cable pulled.
	Cuts [][2]string `json:"cuts,omitempty"`
	Etcd []string    `json:"etcd,omitempty"` // names of etcd members on the hub
}

// node is the hub or a host. Proc is the zero value while it is down.
type node struct {
	Name    string  `json:"name"`
	Address string  `json:"address"`
	Proc    process `json:"proc"`
	// Bare says that it has no engine of the testbed's.
	Bare bool `json:"bare,omitempty"`
	// MTU is that of its link; 0 is the usual one.
	MTU int `json:"mtu,omitempty"`
}

func (s *state) find(name string) *node {
	if name == hubName {
		return &s.Hub
	}
	for i := range s.Hosts {
		if s.Hosts[i].Name == name {
			return &s.Hosts[i]
		}
	}
	return nil
}

// treeOf is the root tree that a host is made from.
func (s *state) treeOf(n node) string {
	if n.Bare {
		return s.Bare
	}
	return s.Tree
}

func loadState(dir string) (*state, error) {
	b, err := os.ReadFile(filepath.Join(dir, "state.json"))
	if err != nil {
		return nil, fmt.Errorf("read testbed state: %w", err)
	}
	s := new(state)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("parse testbed state: %w", err)
	}
	return s, nil
}

func (s *state) save(dir string) error {
	b, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return fmt.Errorf("encode testbed state: %w", err)
	}
	if err := writeFileAtomic(filepath.Join(dir, "state.json"), b, 0o644); err != nil {
		return fmt.Errorf("write testbed state: %w", err)
	}
	return nil
}

// writeFileAtomic replaces a file in one step, so that no reader sees a part.
func writeFileAtomic(path string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// lockFile takes an exclusive lock that ends with unlock or with this process.
// It waits for whoever holds it. Who holds a lock may remove its file.
func lockFile(path string) (unlock func(), err error) {
	for {
		f, err := lockOnce(path)
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		// It may have been removed while this waited: then the lock is on a
		// file that nobody else will find.
		locked, err := f.Stat()
		if err == nil {
			var there fs.FileInfo
			if there, err = os.Stat(path); err == nil && os.SameFile(locked, there) {
				return func() { f.Close() }, nil
			}
		}
		f.Close()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
}

func lockOnce(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, err
		}
	}
}

// The lock files of a testbed are beside its directory. One lets a single
// process bring it up or down, the other guards a change of its state.
func bedLock(name string) string { return stateDir(name) + ".lock" }

func stateLock(name string) string { return stateDir(name) + ".state.lock" }

// poll calls f until it is true, the deadline passes or ctx ends, and then
// says what was waited for and the last error.
func poll(done <-chan struct{}, limit time.Duration, what string, f func() error) error {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	pause := 5 * time.Millisecond
	for {
		err := f()
		if err == nil {
			return nil
		}
		if errors.Is(err, errDown) { // nothing comes back up by itself
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		tick := time.NewTimer(pause)
		select {
		case <-done:
			tick.Stop()
			return fmt.Errorf("wait for %s: given up: %w", what, err)
		case <-deadline.C:
			tick.Stop()
			return fmt.Errorf("wait for %s: not within %v: %w", what, limit, err)
		case <-tick.C:
		}
		if pause < 50*time.Millisecond {
			pause += 5 * time.Millisecond
		}
	}
}
