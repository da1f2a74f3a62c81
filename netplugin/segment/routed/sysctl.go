package routed

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"clocker.io/clocker/netplugin/segment"
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

// EnsureForwarding6 lets the host forward IPv6 packets, if it does not yet. A
// host that forwards believes no router advertisements unless told to: those
// of its links that do now go on doing so.
func (s Sysctl) EnsureForwarding6() error {
	on, err := s.get("ipv6/conf/all/forwarding")
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("this host's kernel has no IPv6: networks with IPv6 cannot be here")
	}
	if err != nil || on == "1" {
		return err
	}
	links, err := os.ReadDir(filepath.Join(string(s), "ipv6/conf"))
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		if l.Name() == "all" || l.Name() == "default" || strings.HasPrefix(l.Name(), segment.LinkPrefix) {
			continue
		}
		path := "ipv6/conf/" + l.Name() + "/accept_ra"
		switch v, err := s.get(path); {
		case err == nil && v == "1":
			if err := s.set(path, "2"); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		case err != nil && !errors.Is(err, fs.ErrNotExist): // it may have gone
			return err
		}
	}
	return s.set("ipv6/conf/all/forwarding", "1")
}

func (s Sysctl) get(path string) (string, error) {
	b, err := os.ReadFile(filepath.Join(string(s), path))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return strings.TrimSpace(string(b)), nil
}

// prepareLink sets what the host's end of an endpoint's link needs before it
// goes up.
func (s Sysctl) prepareLink(name string, e segment.Endpoint) error {
	settings := [][2]string{
		// Loose: the way back may be another one.
		{"ipv4/conf/" + name + "/rp_filter", "2"},
		// Published ports are reached at 127.0.0.1 too; package policy keeps
		// containers from reaching the loopback by this.
		{"ipv4/conf/" + name + "/route_localnet", "1"},
	}
	if e.Address.IsValid() && !e.Address.IsSingleIP() {
		// A container that takes the subnet to be on its link asks for its
		// neighbours there, and the host answers for them.
		settings = append(settings,
			[2]string{"ipv4/conf/" + name + "/proxy_arp", "1"},
			// Else the answer comes up to 0.8 s late.
			[2]string{"ipv4/neigh/" + name + "/proxy_delay", "0"})
	}
	if e.Address6.IsValid() {
		settings = append(settings,
			// Containers are no routers, and nobody else has the link's
			// addresses: neither is waited for.
			[2]string{"ipv6/conf/" + name + "/accept_ra", "0"},
			[2]string{"ipv6/conf/" + name + "/accept_dad", "0"},
			[2]string{"ipv6/conf/" + name + "/proxy_ndp", "1"},
			[2]string{"ipv6/conf/" + name + "/forwarding", "1"},
			[2]string{"ipv6/neigh/" + name + "/proxy_delay", "0"},
			[2]string{"ipv6/conf/" + name + "/disable_ipv6", "0"})
	} else {
		// No address of its own, no router solicitations.
		settings = append(settings, [2]string{"ipv6/conf/" + name + "/disable_ipv6", "1"})
	}
	for _, x := range settings {
		err := s.set(x[0], x[1])
		if errors.Is(err, fs.ErrNotExist) && !e.Address6.IsValid() && strings.HasPrefix(x[0], "ipv6/") {
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
