// Package bundle packs the network plugin as an engine's managed plugin: the
// tar stream that the engine's plugin create call takes.
//
// It talks to no engine.
//
// Design pages: docs/design/networks.md, docs/design/carriers.md.
package bundle

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"io"
)

// Name is what the managed plugin is called. Engines find a managed network
// plugin under its full name only, with the tag; the plain name `clocker` is
// found by [PlainSocket]. The managed plugin itself must not be called
// clocker:latest: engines would take it for `clocker`, and then not find its
// driver.
const Name = "clocker-net:latest"

// Socket is the name of the managed plugin's own socket.
const Socket = "clocker.sock"

// PlainSocket is where, on the host, the plugin listens too: a socket there is
// found by its plain name.
const PlainSocket = "/run/docker/plugins/clocker.sock"

// Mounts are the host's directories that the plugin sees, by where it sees
// them. All but SysctlDir's must be made before the plugin is enabled, else
// the engine refuses: see [HostDirs].
const (
	ConfigDir  = "/etc/clocker"
	StateDir   = "/var/lib/clocker"
	PluginsDir = "/run/docker/plugins"
	// hostPlugins is where the plugin sees the host's PluginsDir: at the
	// same place it would hide the managed plugin's own socket.
	hostPlugins = "/host/plugins"
	// hostSysctl is where it sees the host's network settings: /proc/sys is
	// read-only in a plugin.
	hostSysctl = "/host/sysctl/net"
)

// TUN is the device by which the plugin encrypts where the kernel cannot. The
// engine refuses to enable the plugin on a host that does not have it, unless
// told `docker plugin set clocker-net tun.path=/dev/null`: then networks with
// the carrier wireguard need a kernel that has WireGuard.
const TUN = "/dev/net/tun"

// HostDirs are the directories that must exist on a host before the plugin is
// enabled there.
func HostDirs() []string { return []string{ConfigDir, StateDir, PluginsDir} }

// config is config.json of Docker's plugin format v1.
type config struct {
	Description     string    `json:"description"`
	Documentation   string    `json:"documentation"`
	Entrypoint      []string  `json:"entrypoint"`
	WorkDir         string    `json:"workdir"`
	Interface       face      `json:"interface"`
	Network         named     `json:"network"`
	Linux           linux     `json:"linux"`
	Mounts          []mount   `json:"mounts"`
	Env             []setting `json:"env"`
	PropagatedMount string    `json:"propagatedMount"`
}

type face struct {
	Types  []string `json:"types"`
	Socket string   `json:"socket"`
}

type named struct {
	Type string `json:"type"`
}

type linux struct {
	Capabilities []string `json:"capabilities"`
	Devices      []device `json:"devices"`
}

type device struct {
	Name        string   `json:"name"`
	Description string   `json:"description"`
	Path        string   `json:"path"`
	Settable    []string `json:"settable"`
}

type mount struct {
	Name        string   `json:"name"`
	Source      string   `json:"source"`
	Destination string   `json:"destination"`
	Type        string   `json:"type"`
	Options     []string `json:"options"`
	Settable    []string `json:"settable"`
}

type setting struct {
	Name        string   `json:"name"`
	Description string   `json:"description"`
	Value       string   `json:"value"`
	Settable    []string `json:"settable"`
}

func configFor(version string) config {
	bind := func(name, source, destination string) mount {
		return mount{Name: name, Source: source, Destination: destination, Type: "bind", Options: []string{"rbind", "rw"}}
	}
	readOnly := bind("config", ConfigDir, ConfigDir)
	readOnly.Options = []string{"rbind", "ro"}
	return config{
		Description:   "Docker Clocker networks and addresses, version " + version,
		Documentation: "https://clocker.io/docs/guide",
		WorkDir:       "/",
		Entrypoint: []string{
			"/clocker-net", "--config", ConfigDir, "--state", StateDir, "--sysctl", hostSysctl,
			"--socket", PluginsDir + "/" + Socket, "--socket", hostPlugins + "/clocker.sock",
		},
		Interface: face{Types: []string{"docker.networkdriver/1.0", "docker.ipamdriver/1.0"}, Socket: Socket},
		Network:   named{Type: "host"},
		// Links, routes and packet filter; CAP_SYS_ADMIN is not needed, as
		// no other namespace is entered. CAP_BPF is for package redirect.
		Linux: linux{
			Capabilities: []string{"CAP_NET_ADMIN", "CAP_BPF"},
			Devices: []device{{
				Name: "tun", Description: "device for encrypted networks on kernels without WireGuard",
				Path: TUN, Settable: []string{"path"},
			}},
		},
		Mounts: []mount{
			readOnly,
			bind("state", StateDir, StateDir),
			bind("plugins", PluginsDir, hostPlugins),
			bind("sysctl", "/proc/sys/net", hostSysctl),
		},
		Env: []setting{{
			Name: "CLOCKER_LOG_LEVEL", Description: "debug, info, warn or error", Value: "info", Settable: []string{"value"},
		}},
	}
}

// Tar writes the build context of the plugin: config.json and a root file
// system with nothing but the static executable, of size bytes.
func Tar(w io.Writer, binary io.Reader, size int64, version string) error {
	b, err := json.MarshalIndent(configFor(version), "", "  ")
	if err != nil {
		return fmt.Errorf("pack plugin: %w", err)
	}
	t := tar.NewWriter(w)
	if err := file(t, "config.json", 0o644, int64(len(b)), nil); err == nil {
		_, err = t.Write(b)
		if err != nil {
			return fmt.Errorf("pack plugin: %w", err)
		}
	}
	for _, dir := range []string{
		"rootfs", "rootfs/etc", "rootfs/etc/clocker", "rootfs/var", "rootfs/var/lib", "rootfs/var/lib/clocker",
		"rootfs/run", "rootfs/run/docker", "rootfs/run/docker/plugins", "rootfs/host", "rootfs/host/plugins",
		"rootfs/host/sysctl", "rootfs/host/sysctl/net", "rootfs/tmp", "rootfs/proc", "rootfs/sys", "rootfs/dev",
	} {
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}); err != nil {
			return fmt.Errorf("pack plugin: %w", err)
		}
	}
	if err := file(t, "rootfs/clocker-net", 0o755, size, binary); err != nil {
		return fmt.Errorf("pack plugin: %w", err)
	}
	if err := t.Close(); err != nil {
		return fmt.Errorf("pack plugin: %w", err)
	}
	return nil
}

// file writes one file; the content may follow.
func file(t *tar.Writer, name string, mode, size int64, content io.Reader) error {
	err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: size})
	if err != nil || content == nil {
		return err
	}
	_, err = io.Copy(t, content)
	return err
}
