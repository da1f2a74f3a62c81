package routed

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Sysctl is the directory with the host's network settings: /proc/sys/net, or
// where it is mounted writable.
type Sysctl string

// EnsureForwarding lets the host forward packets, if it does not yet. Engines
// set it too, unless told not to.
func (s Sysctl) EnsureForwarding() error {
	b, err := os.ReadFile(filepath.Join(string(s), "ipv4/ip_forward"))
	if err != nil {
		return fmt.Errorf("read forwarding: %w", err)
	}
	if strings.TrimSpace(string(b)) == "1" {
		return nil
	}
	return s.set("ipv4/ip_forward", "1")
}

// prepareLink sets what the host's end of a link needs before it goes up.
func (s Sysctl) prepareLink(name string, answerForNeighbours bool) error {
	settings := [][2]string{
		// No address of its own, no router solicitations.
		{"ipv6/conf/" + name + "/disable_ipv6", "1"},
		// Loose: the way back may be another one.
		{"ipv4/conf/" + name + "/rp_filter", "2"},
		// Published ports are reached at 127.0.0.1 too; package policy keeps
		// containers from reaching the loopback by this.
		{"ipv4/conf/" + name + "/route_localnet", "1"},
	}
	if answerForNeighbours {
		settings = append(settings,
			[2]string{"ipv4/conf/" + name + "/proxy_arp", "1"},
			// Else the answer comes up to 0.8 s late.
			[2]string{"ipv4/neigh/" + name + "/proxy_delay", "0"})
	}
	for _, x := range settings {
		err := s.set(x[0], x[1])
		if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(x[0], "ipv6/") {
			continue // the kernel has no IPv6
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s Sysctl) set(path, value string) error {
	f, err := os.OpenFile(filepath.Join(string(s), path), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(value)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("set %s: %w", path, err)
	}
	return nil
}
