package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Host is one Docker host of a testbed. Name and addresses never change, over
// restarts either.
type Host struct {
	Name    string
	Address string
	// Address6 is a unique local address, LinkLocal6 the link-local one of
	// eth0.
	Address6, LinkLocal6 string

	// Bare says that it has no engine but what is installed on it.
	Bare bool

	bed *Testbed
}

func newHost(t *Testbed, n node) *Host {
	h := &Host{Name: n.Name, Address: n.Address, Bare: n.Bare, bed: t}
	if a, err := netip.ParseAddr(n.Address); err == nil {
		h.Address6, h.LinkLocal6 = address6(a).String(), linkLocal(hardwareAddr(a)).String()
	}
	return h
}

// process reads who the host's init is now; the zero value while it is down.
func (h *Host) process() (process, error) {
	s, err := loadState(h.bed.dir)
	if err != nil {
		return process{}, err
	}
	n := s.find(h.Name)
	if n == nil {
		return process{}, fmt.Errorf("find host %s: not in testbed %s", h.Name, h.bed.name)
	}
	return n.Proc, nil
}

// Running tells whether the host's init runs. Its engine may not answer yet.
func (h *Host) Running() bool {
	p, err := h.process()
	return err == nil && p.alive()
}

// PID is the host's init as the machine numbers it; 0 while it is down.
// /proc/PID/ns/net is the host's network namespace, /proc/PID/root its files.
func (h *Host) PID() int {
	if p, err := h.process(); err == nil && p.alive() {
		return p.PID
	}
	return 0
}

// Root is the host's root directory as this machine sees it, for copying files
// in and out; "" while the host is down. An absolute link on the way leads out
// of it: say /run, not /var/run.
func (h *Host) Root() string {
	if pid := h.PID(); pid != 0 {
		return fmt.Sprintf("/proc/%d/root", pid)
	}
	return ""
}

// Pids lists the processes of the host, those in its containers too, that run
// a file called name or were started by that name. PIDs are the machine's.
func (h *Host) Pids(name string) []int {
	pid := h.PID()
	if pid == 0 {
		return nil
	}
	return pidsWithin(pid, name)
}

// Command is a command to run inside all of the host's namespaces, as root,
// with the host's usual environment. It does not pass signals on: when it is
// killed, or ctx ends, so is the command on the host, at once.
func (h *Host) Command(ctx context.Context, args ...string) *exec.Cmd {
	// A PID that is none fails to start, with a message that says so.
	in := []string{"--target", strconv.Itoa(h.PID()), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd", "--",
		"setpriv", "--pdeathsig", "KILL", "--"}
	cmd := exec.CommandContext(ctx, "nsenter", append(in, args...)...)
	cmd.Env = machineEnv()
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Exec runs a command on the host and returns what it printed. The error
// carries what it printed on standard error, and wraps *exec.ExitError.
func (h *Host) Exec(ctx context.Context, args ...string) (string, error) {
	if !h.Running() {
		return "", fmt.Errorf("run %s on %s: %w", args[0], h.Name, errDown)
	}
	cmd := h.Command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("run %q on %s: %w: %s", strings.Join(args, " "), h.Name, err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// SSH is how to log in to the host as root.
func (h *Host) SSH() (addr, keyFile, knownHostsFile string) {
	dir := filepath.Join(h.bed.dir, "ssh")
	return h.Address + ":22", filepath.Join(dir, "id"), filepath.Join(dir, "known_hosts")
}

// boot starts the host. The caller has seen that it is down.
func (h *Host) boot() error {
	return h.bed.boot(h.Name)
}

func (t *Testbed) boot(name string) error {
	s, err := loadState(t.dir)
	if err != nil {
		return err
	}
	n := s.find(name)
	if n == nil {
		return fmt.Errorf("boot %s: not in testbed %s", name, t.name)
	}
	if err := removeCgroups(cgroupPath(t.name, name)); err != nil {
		return fmt.Errorf("boot %s: %w", name, err)
	}
	record := func(p process) error {
		return t.update(func(s *state) error {
			s.find(name).Proc = p
			return nil
		})
	}
	wire := func(pid int) error {
		addr := netip.MustParseAddr(n.Address)
		if err := wireHost(s.Hub.Proc.PID, pid, name, addr, s.linkAt(addr)); err != nil {
			return err
		}
		if n.MTU != 0 {
			if err := setMTU(s.Hub.Proc.PID, pid, name, n.MTU); err != nil {
				return err
			}
		}
		return t.update(applyCuts)
	}
	return boot(t.dir, hostConfig(t.dir, s, *n), record, wire)
}

// Kill ends the host like a power cut: everything on it ends at once, its peers
// are told nothing (no connection is closed), and it stays down until Restart.
func (h *Host) Kill() error {
	s, err := loadState(h.bed.dir)
	if err != nil {
		return fmt.Errorf("kill %s: %w", h.Name, err)
	}
	n := s.find(h.Name)
	switch {
	case n == nil:
		err = fmt.Errorf("not in testbed %s", s.Name)
	case s.Hub.Proc.alive():
		err = errors.Join(unplugHost(s.Hub.Proc.PID, h.Name), n.Proc.kill())
	default:
		err = n.Proc.kill()
	}
	if err != nil {
		return fmt.Errorf("kill %s: %w", h.Name, err)
	}
	return nil
}

// Restart boots the host with the same disks and addresses, after cutting its
// power if it is up, and waits until it is ready.
func (h *Host) Restart(ctx context.Context) error {
	if err := h.Kill(); err != nil {
		return err
	}
	if err := h.boot(); err != nil {
		return err
	}
	return h.WaitReady(ctx)
}

// eachHost calls f for all hosts at once.
func (t *Testbed) eachHost(f func(*Host) error) error {
	var g errgroup.Group
	for _, h := range t.hosts {
		g.Go(func() error { return f(h) })
	}
	return g.Wait()
}
