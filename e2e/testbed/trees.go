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
	// Archive are packages that are not installed: the tree's apt finds them,
	// and what they need, in archiveDir of the tree itself, and no others.
	Archive []string
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
	"28": {Kind: "host-28", Suite: "forky", Variant: "minbase", Packages: append([]string{"docker-cli"}, hostPackages...)},
	"20": {Kind: "host-20", Suite: "bookworm", Variant: "minbase", Packages: hostPackages},
}

// bareTree is the root of hosts without an engine, as a machine is that was
// only just installed.
var bareTree = tree{
	Kind: "bare", Suite: "forky", Variant: "minbase",
	Packages: []string{"openssh-server", "ca-certificates", "iproute2", "procps", "iputils-ping", "sudo", "kmod"},
	Archive:  []string{"docker.io", "iptables"},
}

// archiveDir is where a tree keeps its archive of packages.
const archiveDir = "/srv/debian"

// archiveHook makes the archive, in a form that apt reads (a flat repository,
// sources.list(5)), and the tree's only source.
const archiveHook = `set -e
archive="$1` + archiveDir + `"
mkdir -p "$archive"
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
apt-get -y -q --no-install-recommends --download-only -o Dir::Cache::Archives="$archive" install %s
cd "$archive"
rm -rf partial lock
for f in *.deb; do
	name=$(echo "$f" | sed 's/%%3a/-/')
	test "$f" = "$name" || mv "$f" "$name"
	apt-cache show "$(dpkg-deb -f "$name" Package)=$(dpkg-deb -f "$name" Version)" | sed "s|^Filename: .*|Filename: ./$name|"
	echo
done >Packages
rm -f "$1"/etc/apt/sources.list.d/*
echo 'deb [trusted=yes] file:` + archiveDir + ` ./' >"$1/etc/apt/sources.list"
`

// toolsTree is the hub's root, and what images are distilled from.
var toolsTree = tree{Kind: "tools", Suite: "bookworm", Variant: "extract", Packages: []string{
	"docker-registry", "etcd-server", "etcd-client", "redis-server", "nginx-light",
}}

// shellTree has the images' shell. Not bookworm's: its wget crashes when it is
// given a timeout, which passes for a connection that was refused.
var shellTree = tree{Kind: "shell", Suite: "forky", Variant: "extract", Packages: []string{"busybox-static"}}

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
	if len(t.Archive) > 0 {
		fmt.Fprint(h, t.Archive, archiveHook)
	}
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
		if len(t.Archive) > 0 {
			args = append(args, "--customize-hook="+fmt.Sprintf(archiveHook, strings.Join(t.Archive, " ")))
		}
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
