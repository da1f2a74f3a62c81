package testbed

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// buildRoot makes the machine's root and moves this mount namespace into it.
// It runs in the first stage, where the paths of the whole machine are seen.
func buildRoot(c machineConfig, cgroups []hierarchy) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	root := filepath.Join(c.Disk, "root")
	upper, work := filepath.Join(c.Disk, "upper"), filepath.Join(c.Disk, "work")
	if err := mountOverlay(overlay{c.Tree, upper, work, root}); err != nil {
		return err
	}
	for _, m := range machineMounts() {
		if err := m.mount(root); err != nil {
			return err
		}
	}
	if err := makeDevices(filepath.Join(root, "dev")); err != nil {
		return err
	}
	for _, b := range c.Binds {
		at := filepath.Join(root, b[1])
		if err := errors.Join(os.MkdirAll(b[0], 0o711), os.MkdirAll(at, 0o711)); err != nil {
			return fmt.Errorf("bind %s: %w", b[1], err)
		}
		if err := unix.Mount(b[0], at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind %s: %w", b[1], err)
		}
	}
	for _, o := range c.Overlays {
		o.At = filepath.Join(root, o.At)
		if err := mountOverlay(o); err != nil {
			return err
		}
	}
	if err := mountCgroups(cgroups, filepath.Join(root, "sys/fs/cgroup")); err != nil {
		return err
	}
	if err := pivot(root); err != nil {
		return err
	}
	// As under systemd: mounts made in a volume or plugin propagate.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make mounts shared: %w", err)
	}
	return nil
}

func mountOverlay(o overlay) error {
	for _, d := range []string{o.Upper, o.Work, o.At} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return fmt.Errorf("mount overlay: %w", err)
		}
	}
	opts := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", o.Lower, o.Upper, o.Work)
	if err := unix.Mount("overlay", o.At, "overlay", 0, opts); err != nil {
		return fmt.Errorf("mount overlay on %s: %w", o.At, err)
	}
	return nil
}

// pivot makes dir the root and lets go of the old one, so that nothing in the
// namespace can reach or hold the machine's own files.
func pivot(dir string) error {
	if err := unix.Chdir(dir); err != nil {
		return fmt.Errorf("enter new root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of old root: %w", err)
	}
	return unix.Chdir("/")
}

type mountPoint struct {
	kind, at, opts string
	flags          uintptr
}

func machineMounts() []mountPoint {
	const plain = unix.MS_NOSUID | unix.MS_NODEV
	return []mountPoint{
		{"proc", "proc", "", plain | unix.MS_NOEXEC},
		{"sysfs", "sys", "", plain | unix.MS_NOEXEC},
		{"tmpfs", "sys/fs/cgroup", "mode=755", plain | unix.MS_NOEXEC},
		{"tmpfs", "dev", "mode=755", unix.MS_NOSUID},
		{"devpts", "dev/pts", "newinstance,gid=5,mode=620,ptmxmode=666", unix.MS_NOSUID | unix.MS_NOEXEC},
		{"tmpfs", "dev/shm", "mode=1777", plain},
		{"mqueue", "dev/mqueue", "", plain | unix.MS_NOEXEC},
		{"tmpfs", "run", "mode=755", plain},
		{"tmpfs", "tmp", "mode=1777", plain},
	}
}

func (m mountPoint) mount(root string) error {
	at := filepath.Join(root, m.at)
	if err := os.MkdirAll(at, 0o755); err != nil {
		return fmt.Errorf("mount %s: %w", m.at, err)
	}
	if err := unix.Mount(m.kind, at, m.kind, m.flags, m.opts); err != nil {
		return fmt.Errorf("mount %s: %w", m.at, err)
	}
	return nil
}

// makeDevices fills /dev with the nodes a container host needs, and not with
// the machine's disks.
func makeDevices(dev string) error {
	type node struct {
		name         string
		kind         uint32
		major, minor uint32
	}
	nodes := []node{
		{"null", unix.S_IFCHR | 0o666, 1, 3}, {"zero", unix.S_IFCHR | 0o666, 1, 5},
		{"full", unix.S_IFCHR | 0o666, 1, 7}, {"random", unix.S_IFCHR | 0o666, 1, 8},
		{"urandom", unix.S_IFCHR | 0o666, 1, 9}, {"kmsg", unix.S_IFCHR | 0o644, 1, 11},
		{"tty", unix.S_IFCHR | 0o666, 5, 0}, {"console", unix.S_IFCHR | 0o600, 5, 1},
		{"fuse", unix.S_IFCHR | 0o666, 10, 229}, {"net/tun", unix.S_IFCHR | 0o666, 10, 200},
		{"loop-control", unix.S_IFCHR | 0o660, 10, 237},
	}
	for i := range uint32(16) {
		nodes = append(nodes, node{fmt.Sprintf("loop%d", i), unix.S_IFBLK | 0o660, 7, i})
	}
	old := unix.Umask(0)
	defer unix.Umask(old)
	if err := os.MkdirAll(filepath.Join(dev, "net"), 0o755); err != nil {
		return fmt.Errorf("make device nodes: %w", err)
	}
	for _, n := range nodes {
		if err := unix.Mknod(filepath.Join(dev, n.name), n.kind, int(unix.Mkdev(n.major, n.minor))); err != nil {
			return fmt.Errorf("make device node %s: %w", n.name, err)
		}
	}
	for name, to := range map[string]string{
		"ptmx": "pts/ptmx", "fd": "/proc/self/fd",
		"stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(to, filepath.Join(dev, name)); err != nil {
			return fmt.Errorf("link device %s: %w", name, err)
		}
	}
	return nil
}

// setUp does what remains to be done inside the new root before services run.
func setUp(c machineConfig) error {
	if err := unix.Sethostname([]byte(c.Hostname)); err != nil {
		return fmt.Errorf("set hostname: %w", err)
	}
	raiseFileLimit()
	keys := make([]string, 0, len(c.Sysctls))
	for k := range c.Sysctls {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		path := filepath.Join("/proc/sys", strings.ReplaceAll(k, ".", "/"))
		err := os.WriteFile(path, []byte(c.Sysctls[k]), 0o644)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("set sysctl %s: %w", k, err)
		}
	}
	for _, d := range []string{"/run/lock", "/run/sshd", "/var/log"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	return nil
}

// raiseFileLimit goes as high as this process may: to what systemd gives an
// engine, or, without CAP_SYS_RESOURCE, to the limit inherited.
func raiseFileLimit() {
	const want = 1 << 20
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: want, Max: want}) == nil {
		return
	}
	var have unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &have) == nil {
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: have.Max, Max: have.Max})
	}
}

func memFile(name string, b []byte) (int, error) {
	fd, err := unix.MemfdCreate(name, 0)
	if err != nil {
		return -1, err
	}
	if _, err := unix.Write(fd, b); err != nil {
		return -1, err
	}
	if _, err := unix.Seek(fd, 0, 0); err != nil {
		return -1, err
	}
	return fd, nil
}

// unshareCgroup gives the calling thread a cgroup namespace rooted where it
// is. The thread stays locked: the second stage is executed from it.
func unshareCgroup() error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("unshare cgroup namespace: %w", err)
	}
	return nil
}
