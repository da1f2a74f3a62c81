package agent

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"clocker.io/clocker/pkg/hostconfig"
)

// States of sockets in /proc/net: proc(5), linux/include/net/tcp_states.h.
const (
	tcpListen = "0A"
	udpOpen   = "07"
)

// listening reads the ports that something listens on from a table of
// /proc/net ("tcp", "tcp6", "udp", "udp6"), as "tcp/80". UDP ports from
// ephemeral up are left out: they are clients', and change all the time. So
// is the fleet's own DNS address.
func listening(table io.Reader, name string, ephemeral uint16) ([]string, error) {
	proto := strings.TrimSuffix(name, "6")
	state := tcpListen
	if proto == "udp" {
		state = udpOpen
	}
	var out []string
	s := bufio.NewScanner(table)
	for first := true; s.Scan(); first = false {
		f := strings.Fields(s.Text())
		if first || len(f) < 4 || f[3] != state {
			continue
		}
		addr, port, err := parseSocket(f[1])
		if err != nil {
			return nil, fmt.Errorf("read /proc/net/%s: %w", name, err)
		}
		if port == 0 || addr.String() == hostconfig.DNSAddress || proto == "udp" && port >= ephemeral {
			continue
		}
		out = append(out, proto+"/"+strconv.Itoa(int(port)))
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("read /proc/net/%s: %w", name, err)
	}
	return out, nil
}

// parseSocket reads "0100007F:1F90": the address as 32-bit words in the
// machine's byte order (little-endian on everything Docker runs on), the port
// in network order.
func parseSocket(s string) (netip.Addr, uint16, error) {
	a, p, ok := strings.Cut(s, ":")
	b, err := hex.DecodeString(a)
	if !ok || err != nil || len(b)%4 != 0 {
		return netip.Addr{}, 0, fmt.Errorf("socket %q is malformed", s)
	}
	for i := 0; i < len(b); i += 4 {
		slices.Reverse(b[i : i+4])
	}
	addr, ok := netip.AddrFromSlice(b)
	port, err := strconv.ParseUint(p, 16, 16)
	if !ok || err != nil {
		return netip.Addr{}, 0, fmt.Errorf("socket %q is malformed", s)
	}
	return addr.Unmap(), uint16(port), nil
}

// ephemeralFrom reads the first port that clients get from
// /proc/sys/net/ipv4/ip_local_port_range.
func ephemeralFrom(s string) uint16 {
	if f := strings.Fields(s); len(f) == 2 {
		if n, err := strconv.ParseUint(f[0], 10, 16); err == nil {
			return uint16(n)
		}
	}
	return 32768 // the kernel's default
}
