package testbed

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// hierarchy is one mounted cgroup tree: a version 1 controller set, or the
// unified one when that carries the controllers.
type hierarchy struct {
	at   string // where the machine has it
	opts string // mount options that name it; "" for version 2
	dir  string // name below /sys/fs/cgroup
}

const cgroupTop = "clocker-testbed"

// cgroupPath is a machine's cgroup below each hierarchy's root; the whole
// testbed's where machine is "".
func cgroupPath(bed, machine string) string {
	return filepath.Join(cgroupTop, globalName(bed), machine)
}

// hierarchies lists what the machine has mounted. With version 1 controllers
// present the unified tree is left out: an engine takes its limits from those.
// To be called from the machine's own cgroup namespace: seen from another,
// mounted roots have other names.
func hierarchies() ([]hierarchy, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list cgroups: %w", err)
	}
	var v1, v2 []hierarchy
	seen := map[string]bool{}
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		before, after, _ := strings.Cut(sc.Text(), " - ")
		front, back := strings.Fields(before), strings.Fields(after)
		if len(front) < 5 || len(back) < 3 || front[3] != "/" {
			continue
		}
		switch at := front[4]; back[0] {
		case "cgroup2":
			v2 = append(v2, hierarchy{at: at})
		case "cgroup":
			var opts []string
			for _, o := range strings.Split(back[2], ",") {
				if !strings.Contains(" rw ro xattr noprefix clone_children ", " "+o+" ") && !strings.HasPrefix(o, "release_agent=") {
					opts = append(opts, o)
				}
			}
			h := hierarchy{at: at, opts: strings.Join(opts, ",")}
			h.dir = strings.TrimPrefix(h.opts, "name=")
			if h.dir != "" && !seen[h.opts] {
				seen[h.opts] = true
				v1 = append(v1, h)
			}
		}
	}
	if len(v1) > 0 {
		return v1, nil
	}
	if len(v2) == 0 {
		return nil, errors.New("list cgroups: none are mounted")
	}
	return v2[:1], nil
}

// enterCgroups makes the machine's cgroup in every hierarchy, moves this
// process in, and makes those cgroups the roots of a new cgroup namespace.
func enterCgroups(all []hierarchy, path string) error {
	for _, h := range all {
		// A testbed that ends may take the common parent away meanwhile.
		err := poll(nil, 5*time.Second, "cgroup", func() error { return h.makeCgroup(path) })
		if err != nil {
			return err
		}
		dir := filepath.Join(h.at, path)
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("enter cgroup %s: %w", dir, err)
		}
	}
	return unshareCgroup()
}

func (h hierarchy) makeCgroup(path string) error {
	dir := h.at
	for _, part := range strings.Split(path, "/") {
		if h.opts == "" {
			allowControllers(dir)
		}
		parent := dir
		dir = filepath.Join(dir, part)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make cgroup: %w", err)
		}
		for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
			if err := inheritCpuset(parent, dir, f); err != nil {
				return fmt.Errorf("fill cpuset: %w", err)
			}
		}
	}
	return nil
}

// inheritCpuset copies a setting that version 1 starts empty, in which state
// no process may enter.
func inheritCpuset(parent, dir, file string) error {
	have, err := os.ReadFile(filepath.Join(dir, file))
	if errors.Is(err, fs.ErrNotExist) || len(bytes.TrimSpace(have)) > 0 {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(parent, file))
	if err != nil {
		return err
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return nil // version 2, where empty means the parent's
	}
	return os.WriteFile(filepath.Join(dir, file), b, 0)
}

// allowControllers hands a version 2 cgroup's controllers to its children.
// Each may be refused by itself; what is missing shows in the engine's own
// warnings.
func allowControllers(dir string) {
	b, _ := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	for _, c := range strings.Fields(string(b)) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0)
	}
}

// mountCgroups shows the machine its own part of each hierarchy. Version 2
// allows no processes beside controlled children, so the init moves down.
func mountCgroups(all []hierarchy, at string) error {
	for _, h := range all {
		if h.opts == "" {
			if err := unix.Mount("cgroup2", at, "cgroup2", 0, ""); err != nil {
				return fmt.Errorf("mount cgroup2: %w", err)
			}
			leaf := filepath.Join(at, "init")
			if err := errors.Join(os.Mkdir(leaf, 0o755), os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte("0"), 0)); err != nil {
				return fmt.Errorf("enter cgroup: %w", err)
			}
			allowControllers(at)
			continue
		}
		dir := filepath.Join(at, h.dir)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("mount cgroup: %w", err)
		}
		if err := unix.Mount("cgroup", dir, "cgroup", 0, h.opts); err != nil {
			return fmt.Errorf("mount cgroup %s: %w", h.opts, err)
		}
	}
	return nil
}

// removeCgroups ends what still runs in the cgroups below path, all of which
// were made by enterCgroups or within them, and removes them.
func removeCgroups(path string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	var errs []error
	for _, h := range all {
		top := filepath.Join(h.at, path)
		errs = append(errs, poll(nil, 10*time.Second, "cgroups to empty", func() error {
			return removeCgroupTree(top)
		}))
		if filepath.Dir(path) == cgroupTop {
			_ = os.Remove(filepath.Dir(top)) // shared: goes with the last testbed
		}
	}
	return errors.Join(errs...)
}

func removeCgroupTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeCgroupTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	err = os.Remove(dir)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	b, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	for _, f := range strings.Fields(string(b)) {
		if pid, perr := strconv.Atoi(f); perr == nil && pid > 1 && pid != os.Getpid() {
			if p, perr := lookupProcess(pid); perr == nil {
				err = errors.Join(err, p.kill())
			}
		}
	}
	return err
}
