package testbed

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
)

// registryPort is where the hub's registry listens, without TLS.
const registryPort = 5000

// The hub's paths, inside its own root.
const (
	hubImages   = "/var/lib/registry"
	hubEtcdData = "/var/lib/etcd"
	hubTLS      = "/etc/testbed/tls"
)

func hubDisk(dir string) string { return filepath.Join(dir, hubName) }

// seedHub writes the hub's own files: the registry's config and the
// certificate its front shows for the names it stands in for.
func seedHub(dir string, s *state, ca *authority) error {
	upper := filepath.Join(hubDisk(dir), "upper")
	addr := netip.MustParseAddr(s.Hub.Address)
	if err := ca.issue(filepath.Join(upper, hubTLS), hubName, []netip.Addr{addr}, append([]string{hubName}, hubRegistries...)); err != nil {
		return fmt.Errorf("seed hub: %w", err)
	}
	for path, text := range map[string]string{
		"etc/testbed/registry.yml": registryConfig(fmt.Sprintf("%s:%d", s.Hub.Address, registryPort), hubImages),
		"etc/hosts":                string(hostsFile(s)),
		"etc/passwd":               "root:x:0:0:root:/root:/bin/sh\n",
		"etc/group":                "root:x:0:\n",
	} {
		path = filepath.Join(upper, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("seed hub: %w", err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return fmt.Errorf("seed hub: %w", err)
		}
	}
	return nil
}

// registryConfig is the config of Debian's docker-registry (distribution 2.8).
func registryConfig(listen, dir string) string {
	return fmt.Sprintf(`version: 0.1
log:
  level: error
  accesslog:
    disabled: true
storage:
  filesystem:
    rootdirectory: %s
  delete:
    enabled: true
http:
  addr: %s
`, dir, listen)
}

// hubConfig is what the hub's init is told. The registry starts from the
// cache's images; what is pushed goes to the testbed's own directory.
func hubConfig(dir string, s *state) machineConfig {
	disk := hubDisk(dir)
	return machineConfig{
		Hostname: hubName,
		Tree:     s.Tools,
		Disk:     disk,
		Cgroup:   cgroupPath(s.Name, hubName),
		Overlays: []overlay{{
			Lower: s.Registry,
			Upper: filepath.Join(disk, "images"),
			Work:  filepath.Join(disk, "images-work"),
			At:    hubImages,
		}},
		Binds: [][2]string{{filepath.Join(disk, "etcd"), hubEtcdData}},
		Sysctls: map[string]string{
			// So that the hub refuses what the hosts send to the world.
			"net.ipv4.ip_forward":          "1",
			"net.ipv6.conf.all.forwarding": "1",
			// This namespace's own; the machine's is not touched.
			"net.bridge.bridge-nf-call-iptables":  "0",
			"net.bridge.bridge-nf-call-ip6tables": "0",
			"net.bridge.bridge-nf-call-arptables": "0",
		},
		Services: []service{
			{Name: "registry", Args: []string{"docker-registry", "serve", "/etc/testbed/registry.yml"}},
			{Name: "front", Args: frontArgs(s), As: argFront},
		},
	}
}
