package bridged

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// portSetting is one of a bridge port's settings (IFLA_BRPORT_*).
type portSetting struct {
	attribute int
	on        bool
}

// endpointPort is how a local endpoint's port is set. Who looks for a local
// neighbour asks all local ones, and the filter drops whatever else is meant
// for many. A container may reach itself by a service or a published port:
// such a frame goes out where it came in.
func endpointPort() []portSetting {
	return []portSetting{
		{nl.IFLA_BRPORT_LEARNING, false}, {nl.IFLA_BRPORT_UNICAST_FLOOD, false},
		{nl.IFLA_BRPORT_BCAST_FLOOD, true}, {nl.IFLA_BRPORT_MCAST_FLOOD, true},
		{nl.IFLA_BRPORT_MODE, true},
	}
}

// tunnelPort is how the port to the other hosts is set: the bridge answers
// there and then for those who are behind it.
func tunnelPort(broadcast bool) []portSetting {
	return []portSetting{
		{nl.IFLA_BRPORT_LEARNING, false}, {nl.IFLA_BRPORT_UNICAST_FLOOD, false},
		{nl.IFLA_BRPORT_BCAST_FLOOD, broadcast}, {nl.IFLA_BRPORT_MCAST_FLOOD, broadcast},
		{nl.IFLA_BRPORT_NEIGH_SUPPRESS, true},
	}
}

// setPort changes all settings of a port at once.
func setPort(index int, settings []portSetting) error {
	request := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	m := nl.NewIfInfomsg(unix.AF_BRIDGE)
	m.Index = int32(index)
	request.AddData(m)
	info := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	for _, x := range settings {
		value := byte(0)
		if x.on {
			value = 1
		}
		info.AddRtAttr(x.attribute, []byte{value})
	}
	request.AddData(info)
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// Attributes of a bridge, from linux/if_link.h.
const (
	bridgeCallsIPTables  = 36 // IFLA_BR_NF_CALL_IPTABLES
	bridgeCallsIP6Tables = 37 // IFLA_BR_NF_CALL_IP6TABLES
)

// filterBridged has the bridge's frames seen by the host's packet filter and
// connection tracking, whatever the host's setting for all bridges: an answer
// to a connection whose destination was translated goes from port to port,
// and must be translated back.
func filterBridged(index int) error {
	request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	m := nl.NewIfInfomsg(unix.AF_UNSPEC)
	m.Index = int32(index)
	request.AddData(m)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	settings := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	settings.AddRtAttr(bridgeCallsIPTables, []byte{1})
	settings.AddRtAttr(bridgeCallsIP6Tables, []byte{1})
	request.AddData(info)
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// prepareBridge sets what a bridge needs before it goes up.
func (s *Segment) prepareBridge(name string, ipv6 bool) error {
	settings := [][2]string{
		// Loose: the way back may be another one.
		{"ipv4/conf/" + name + "/rp_filter", "2"},
		// Published ports are reached at 127.0.0.1 too; package policy keeps
		// containers from reaching the loopback by this.
		{"ipv4/conf/" + name + "/route_localnet", "1"},
		// Only for the gateway, not for the host's other addresses.
		{"ipv4/conf/" + name + "/arp_ignore", "1"},
	}
	if !ipv6 {
		settings = append(settings, [2]string{"ipv6/conf/" + name + "/disable_ipv6", "1"})
	} else {
		settings = append(settings,
			[2]string{"ipv6/conf/" + name + "/disable_ipv6", "0"},
			[2]string{"ipv6/conf/" + name + "/accept_ra", "0"},
			// Every host has the same addresses here.
			[2]string{"ipv6/conf/" + name + "/accept_dad", "0"})
	}
	return s.setAll(settings)
}

// preparePort sets what a local endpoint's port needs before it goes up: the
// host speaks by the bridge, never by its ports.
func (s *Segment) preparePort(name string) error {
	return s.setAll([][2]string{{"ipv6/conf/" + name + "/disable_ipv6", "1"}})
}

func (s *Segment) setAll(settings [][2]string) error {
	for _, x := range settings {
		err := s.set(x[0], x[1])
		if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(x[0], "ipv6/") && strings.HasSuffix(x[0], "/disable_ipv6") {
			continue // the kernel has no IPv6
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Segment) set(path, value string) error {
	f, err := os.OpenFile(filepath.Join(s.Sysctl, path), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(value)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("set %s: %w", path, err)
	}
	return nil
}
