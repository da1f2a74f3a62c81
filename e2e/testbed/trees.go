package testbed

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// tree is a Debian root to be made by mmdebstrap and kept in the cache under
// its suite and a checksum of everything below.
type tree struct {
	Kind     string // name in the cache
	Suite    string
	Variant  string // of mmdebstrap; "extract" runs no maintainer scripts
	Packages []string
}

// hostPackages are in every host, whatever its engine.
var hostPackages = []string{
	"docker.io", "iproute2", "iptables", "nftables", "conntrack", "openssh-server",
	"ca-certificates", "procps", "iputils-ping", "curl", "iperf3", "tcpdump", "kmod",
	"btrfs-progs",
}

// hostTrees are the hosts' roots by engine: forky has Engine 28.5, bookworm
// 20.10. Debian split the client off in between.
var hostTrees = map[string]tree{
	"28": {"host-28", "forky", "minbase", append([]string{"docker-cli"}, hostPackages...)},
	"20": {"host-20", "bookworm", "minbase", hostPackages},
}

// toolsTree is the hub's root, and what images are distilled from.
var toolsTree = tree{"tools", "bookworm", "extract", []string{
	"docker-registry", "etcd-server", "etcd-client", "redis-server", "nginx-light",
}}

// shellTree has the images' shell. Not bookworm's: its wget crashes when it is
// given a timeout, which passes for a connection that was refused.
var shellTree = tree{"shell", "forky", "extract", []string{"busybox-static"}}

// treeOptions go to mmdebstrap for every tree. Snapshots of Debian are
// expected to be old, so the age of their index is not checked.
var treeOptions = []string{
	"--mode=root", "--quiet",
	`--aptopt=Acquire::Check-Valid-Until "false"`,
	"--dpkgopt=path-exclude=/usr/share/man/*",
	"--dpkgopt=path-exclude=/usr/share/doc/*",
	"--dpkgopt=path-exclude=/usr/share/info/*",
	"--dpkgopt=path-exclude=/usr/share/locale/*",
}

func (t tree) path() string {
	h := sha256.New()
	fmt.Fprintln(h, t.Suite, t.Variant, t.Packages, treeOptions)
	return filepath.Join(cacheDir(), fmt.Sprintf("%s-%x", t.Kind, h.Sum(nil)[:6]))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// make builds the tree unless the cache has it, and returns where it is.
func (t tree) make(ctx context.Context, log func(string, ...any)) (string, error) {
	at := t.path()
	if exists(at) {
		return at, nil
	}
	unlock, err := lockFile(filepath.Join(cacheDir(), t.Kind+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if exists(at) { // by whoever held the lock
		return at, nil
	}
	mirror, err := debianMirror(ctx, log)
	if err != nil {
		return "", err
	}
	began := time.Now()
	log("%s: building from Debian %s", t.Kind, t.Suite)
	return at, buildInto(at, func(tmp string) error {
		args := append([]string{"--variant=" + t.Variant, "--include=" + strings.Join(t.Packages, ",")}, treeOptions...)
		cmd := exec.CommandContext(ctx, "mmdebstrap", append(args, t.Suite, tmp, mirror)...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		cmd.WaitDelay = 20 * time.Second
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("make tree %s: %w: %s", t.Kind, err, lastLines(out.Bytes(), 12))
		}
		log("%s: built in %.1fs", t.Kind, time.Since(began).Seconds())
		return nil
	})
}

// buildInto lets f fill a directory and gives it its name only when whole.
// The caller holds a lock; what an earlier attempt left is removed.
func buildInto(at string, f func(tmp string) error) error {
	tmp := filepath.Join(filepath.Dir(at), ".new-"+filepath.Base(at))
	if err := removeDir(tmp); err != nil {
		return fmt.Errorf("clear %s: %w", tmp, err)
	}
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", tmp, err)
	}
	err := f(tmp)
	if err == nil {
		err = os.Rename(tmp, at)
	}
	if err != nil {
		return errors.Join(err, removeDir(tmp))
	}
	return nil
}

func lastLines(b []byte, n int) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
