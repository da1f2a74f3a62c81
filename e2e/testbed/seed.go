package testbed

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// hubRegistries are names of registries the hub stands in for, on HTTPS.
// Docker Hub's must be here although every engine has a mirror set: an engine
// that finds an image in no mirror asks Docker Hub, and what it is told there
// is the error the user sees.
var hubRegistries = []string{"registry-1.docker.io", "auth.docker.io", "index.docker.io", "clocker.io"}

// hostDisk is where a host keeps what outlives its restarts.
func hostDisk(dir, name string) string { return filepath.Join(dir, "hosts", name) }

// seedHost writes the files that make a root tree this host. It is done once,
// when the host is new: what changes in /etc after that is the host's own.
func seedHost(dir string, s *state, n node, ca *authority) error {
	addr := netip.MustParseAddr(n.Address)
	upper := filepath.Join(hostDisk(dir, n.Name), "upper")
	certs := filepath.Join(upper, "etc/docker/tls")
	if err := errors.Join(os.MkdirAll(certs, 0o755), os.Chmod(upper, 0o755)); err != nil {
		return fmt.Errorf("seed %s: %w", n.Name, err)
	}
	if err := ca.issue(certs, n.Name, []netip.Addr{addr, netip.AddrFrom4([4]byte{127, 0, 0, 1})}, []string{n.Name, "localhost"}); err != nil {
		return fmt.Errorf("seed %s: %w", n.Name, err)
	}
	hostKey := filepath.Join(dir, "ssh", "host", n.Name)
	if err := newSSHKey(hostKey, "root@"+n.Name); err != nil {
		return fmt.Errorf("seed %s: %w", n.Name, err)
	}
	daemon, err := json.MarshalIndent(daemonConfig(s), "", "\t")
	if err != nil {
		return fmt.Errorf("seed %s: %w", n.Name, err)
	}
	roots, err := os.ReadFile(filepath.Join(s.treeOf(n), "etc/ssl/certs/ca-certificates.crt"))
	if err != nil {
		return fmt.Errorf("seed %s: %w", n.Name, err)
	}
	read := func(path string) []byte {
		b, rerr := os.ReadFile(path)
		err = errors.Join(err, rerr)
		return b
	}
	files := []hostFile{
		{"etc/hostname", []byte(n.Name + "\n"), 0o644},
		{"etc/hosts", hostsFile(s), 0o644},
		{"etc/resolv.conf", fmt.Appendf(nil, "nameserver %s\noptions timeout:1 attempts:2\n", s.Hub.Address), 0o644},
		{"etc/docker/daemon.json", append(daemon, '\n'), 0o644},
		{"etc/ssl/certs/ca-certificates.crt", append(roots, read(filepath.Join(certs, "ca.pem"))...), 0o644},
		{"etc/ssh/ssh_host_ed25519_key", read(hostKey), 0o600},
		{"etc/ssh/ssh_host_ed25519_key.pub", read(hostKey + ".pub"), 0o644},
		{"etc/ssh/sshd_config.d/testbed.conf", []byte(sshdConfig), 0o644},
		{"root/.ssh/authorized_keys", read(filepath.Join(dir, "ssh", "id.pub")), 0o600},
	}
	if n.Bare {
		files = append(files, hostFile{"etc/default/docker", []byte(bareDefaults), 0o644}, hostFile{"etc/fstab", []byte(bareMounts), 0o644})
	}
	for _, f := range files {
		if n.Bare && strings.HasPrefix(f.path, "etc/docker/") {
			continue
		}
		path := filepath.Join(upper, f.path)
		mode := fs.FileMode(0o755)
		if strings.HasPrefix(f.path, "root/") {
			mode = 0o700
		}
		err = errors.Join(err, os.MkdirAll(filepath.Dir(path), mode), os.WriteFile(path, f.data, f.mode))
	}
	if err != nil {
		return fmt.Errorf("seed %s: %w", n.Name, err)
	}
	return writeKnownHosts(dir, s)
}

type hostFile struct {
	path string
	data []byte
	mode fs.FileMode
}

// What an administrator tells Docker's init script on a machine that may not
// raise its limits and has its cgroups mounted.
const (
	bareDefaults = "ulimit() { command ulimit \"$@\" 2>/dev/null || true; }\n"
	bareMounts   = "cgroup /sys/fs/cgroup none noauto 0 0\n"
)

const sshdConfig = `HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
MaxStartups 100:30:200
MaxSessions 200
`

func daemonConfig(s *state) map[string]any {
	registry := s.Hub.Address + ":5000"
	return map[string]any{
		"hosts":               []string{"unix:///var/run/docker.sock", "tcp://0.0.0.0:2376"},
		"tlsverify":           true,
		"tlscacert":           "/etc/docker/tls/ca.pem",
		"tlscert":             "/etc/docker/tls/cert.pem",
		"tlskey":              "/etc/docker/tls/key.pem",
		"registry-mirrors":    []string{"http://" + registry},
		"insecure-registries": []string{registry},
		"storage-driver":      "overlay2",
	}
}

func hostsFile(s *state) []byte {
	var b bytes.Buffer
	b.WriteString("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")
	fmt.Fprintf(&b, "%s %s\n", s.Hub.Address, hubName)
	fmt.Fprintf(&b, "%s %s\n", octet(s.Subnet, machineOctet), machineName)
	for _, h := range s.Hosts {
		fmt.Fprintf(&b, "%s %s\n", h.Address, h.Name)
	}
	return b.Bytes()
}

// writeKnownHosts lists the hosts' keys by address and by name.
func writeKnownHosts(dir string, s *state) error {
	var b bytes.Buffer
	for _, h := range s.Hosts {
		key, err := os.ReadFile(filepath.Join(dir, "ssh", "host", h.Name+".pub"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("write known hosts: %w", err)
		}
		fmt.Fprintf(&b, "%s,%s %s", h.Address, h.Name, key)
	}
	if err := writeFileAtomic(filepath.Join(dir, "ssh", "known_hosts"), b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write known hosts: %w", err)
	}
	return nil
}

// SharedPath is a directory that is the same on every host, as one of a network
// file system is; a host that is cut off still has it.
const SharedPath = "/srv/shared"

// sharedDir is where it is on this machine.
func sharedDir(dir string) string { return filepath.Join(dir, "shared") }

// Shared is where [SharedPath] is on this machine.
func (t *Testbed) Shared() string { return sharedDir(t.dir) }

// hostConfig is what a host's init is told.
func hostConfig(dir string, s *state, n node) machineConfig {
	disk := hostDisk(dir, n.Name)
	const containerd = "/run/containerd/containerd.sock"
	services := []service{
		{Name: "containerd", Args: []string{"containerd"}},
		{Name: "dockerd", Args: []string{"dockerd", "--containerd=" + containerd}, After: containerd},
		{Name: "sshd", Args: []string{"/usr/sbin/sshd", "-D", "-e"}},
	}
	if n.Bare {
		services = []service{services[2], {Name: "rc", Args: []string{"sh", "-c", startInstalled}}}
	}
	return machineConfig{
		Hostname: n.Name,
		Tree:     s.treeOf(n),
		Disk:     disk,
		Cgroup:   cgroupPath(s.Name, n.Name),
		// Plain directories: overlay2 does not stack on overlayfs.
		Binds: [][2]string{
			{filepath.Join(disk, "docker"), "/var/lib/docker"},
			{filepath.Join(disk, "containerd"), "/var/lib/containerd"},
			{filepath.Join(disk, "clocker"), "/var/lib/clocker"},
			{sharedDir(dir), SharedPath},
		},
		Services: services,
	}
}

// startInstalled is what a bare host's init does at boot: start an engine that
// was installed, as any init does, and go on.
const startInstalled = `if test -x /etc/init.d/docker; then service docker start; fi; exec sleep infinity`
