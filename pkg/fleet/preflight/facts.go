// Package preflight gathers what must be known of a machine before it becomes
// a host or carries a controller: addresses, routes, ports in use, clock and
// the fleet it may belong to already. It runs on that machine, in a container
// in its network namespace, and writes [Facts] as JSON for the user's machine
// to judge.
//
// It judges nothing and changes nothing.
//
// Design page: docs/design/fleet.md.
package preflight

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// HostEtc is where the machine's /etc is in the container, HostDev its /dev.
const (
	HostEtc = "/host/etc"
	HostDev = "/host/dev"
)

// Facts is what was found out about a machine.
type Facts struct {
	Hostname string    `json:"hostname"`
	Kernel   string    `json:"kernel"`
	Now      time.Time `json:"now"`
	// Addresses are the machine's own, loopback and link-local left out, in
	// the order of its links.
	Addresses []Address `json:"addresses"`
	// DefaultSource is the address that packets to far away come from; empty
	// without a default route. DefaultLink and MTU are of its link.
	DefaultSource string `json:"defaultSource,omitempty"`
	DefaultLink   string `json:"defaultLink,omitempty"`
	MTU           int    `json:"mtu,omitempty"`
	// Routes are the destinations of the main table in CIDR form, without
	// the default route and without Clocker's own.
	Routes []string `json:"routes"`
	// Listening are the ports in use, as "tcp/80".
	Listening []string `json:"listening"`
	// Everywhere are those of Listening that are taken on every address.
	Everywhere []string `json:"everywhere,omitempty"`
	// Firewall are the base chains of nftables, Docker's own left out, that
	// drop what no rule of theirs lets pass. Rules of the older iptables
	// cannot be read; see IPTables.
	Firewall []Chain `json:"firewall,omitempty"`
	// DiskFree is what the engine's disk has left, in bytes; 0 when unknown.
	DiskFree  int64 `json:"diskFree,omitempty"`
	IPForward bool  `json:"ipForward"`
	// Cgroup is "v1" or "v2".
	Cgroup string `json:"cgroup"`
	// IPTables is [NFT], [Legacy], or empty when Docker has no rules.
	IPTables string `json:"iptables,omitempty"`
	// TUN says that there is a device /dev/net/tun. One that could not be
	// looked for counts as there.
	TUN bool `json:"tun"`
	// Member is what the machine's /etc/clocker says; nil when there is none.
	Member *Member `json:"member,omitempty"`
	// Unknown says what could not be found out, and why.
	Unknown []string `json:"unknown,omitempty"`
}

// Chain is a base chain of the machine's firewall.
type Chain struct {
	// Table is family and name ("inet filter"), Hook "input" or "forward".
	Table string `json:"table"`
	Name  string `json:"name"`
	Hook  string `json:"hook"`
	Rules int    `json:"rules"`
	// Keeper is the program that keeps the table, [UFW] or [Firewalld]; empty
	// for another one, or none.
	Keeper string `json:"keeper,omitempty"`
}

// The kernel's two faces by which Docker can make its rules.
const (
	NFT    = "nft"
	Legacy = "legacy"
)

// Programs that keep a machine's firewall.
const (
	UFW       = "ufw"
	Firewalld = "firewalld"
)

// Address is one address of a machine.
type Address struct {
	Link string `json:"link"`
	// Address is in CIDR form.
	Address netip.Prefix `json:"address"`
	MTU     int          `json:"mtu"`
}

// Member is a machine's membership of a fleet.
type Member struct {
	Fleet       string   `json:"fleet"`
	HostID      string   `json:"hostID"`
	Name        string   `json:"name"`
	Address     string   `json:"address"`
	Etcd        []string `json:"etcd,omitempty"`
	Controllers []string `json:"controllers,omitempty"`
	// CA is the fingerprint of the fleet's CA; empty when the file is
	// missing.
	CA string `json:"ca,omitempty"`
	// CertificateUntil is the end of the host's certificate; zero when
	// certificate or key are missing.
	CertificateUntil time.Time `json:"certificateUntil,omitzero"`
	// Adopted is the record that adoption left; nil when it was interrupted.
	Adopted *Adopted `json:"adopted,omitempty"`
}

// AdoptedFile is the name, in /etc/clocker, of the record that adoption
// leaves.
const AdoptedFile = "adopted.json"

// Adopted is what adoption must remember to be undone and upgraded.
type Adopted struct {
	// PluginID is the engine's id of the plugin, PluginSum the SHA-256 of the
	// binary in it.
	PluginID  string `json:"pluginID,omitempty"`
	PluginSum string `json:"pluginSum,omitempty"`
	// GatewayBridge is true when the engine had its docker_gwbridge before:
	// else it goes with Clocker.
	GatewayBridge bool   `json:"gatewayBridge,omitempty"`
	Version       string `json:"version"`
}

// Run gathers the facts and writes them as JSON.
func Run(ctx context.Context, out io.Writer) error {
	f := Gather(ctx, "/proc", HostEtc, HostDev, time.Now)
	if err := json.NewEncoder(out).Encode(f); err != nil {
		return fmt.Errorf("write facts: %w", err)
	}
	return nil
}

// Gather finds out what it can. proc is /proc, etc the machine's /etc, dev its
// /dev. What cannot be found out is in Unknown.
func Gather(_ context.Context, proc, etc, dev string, now func() time.Time) Facts {
	var f Facts
	note := func(what string, err error) {
		if err != nil {
			f.Unknown = append(f.Unknown, what+": "+err.Error())
		}
	}
	var err error
	f.Hostname, err = os.Hostname()
	note("hostname", err)
	f.Kernel, f.Cgroup, err = system()
	note("kernel", err)
	note("addresses", network(&f))
	for _, s := range []struct{ file, proto string }{{"tcp", "tcp"}, {"tcp6", "tcp"}, {"udp", "udp"}, {"udp6", "udp"}} {
		b, err := os.ReadFile(filepath.Join(proc, "net", s.file))
		if os.IsNotExist(err) {
			continue // a kernel without IPv6
		}
		note("ports", err)
		f.Listening = append(f.Listening, ParseListening(string(b), s.proto)...)
		f.Everywhere = append(f.Everywhere, ParseEverywhere(string(b), s.proto)...)
	}
	f.Listening, f.Everywhere = sorted(f.Listening), sorted(f.Everywhere)
	b, err := os.ReadFile(filepath.Join(proc, "sys/net/ipv4/ip_forward"))
	note("ip_forward", err)
	f.IPForward = len(b) > 0 && b[0] == '1'
	f.IPTables, err = iptables(proc)
	note("iptables", err)
	f.Firewall, err = firewall()
	note("firewall", err)
	// The container's own root is on the engine's disk.
	f.DiskFree, err = diskFree("/")
	note("disk", err)
	f.TUN, err = hasTUN(dev)
	note("devices", err)
	f.Member, err = ReadMember(filepath.Join(etc, "clocker"))
	note("membership", err)
	f.Now = now().UTC()
	return f
}
