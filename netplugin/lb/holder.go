package lb

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// holder keeps the ports that every host answers on: it binds a socket to each,
// so that nothing else on the host gets it. Connections never reach it, as the
// table translates them before, unless there is no replica: those are refused.
type holder struct {
	log *slog.Logger
	mu  sync.Mutex
	// held are the open sockets, nil for one that could not be had; guarded
	// by mu.
	held map[heldSocket]io.Closer
}

// heldSocket is a socket on one address of the host, or on all.
type heldSocket struct {
	Socket
	address string
}

func newHolder(log *slog.Logger) *holder {
	return &holder{log: log, held: map[heldSocket]io.Closer{}}
}

// Set takes the ports that are wanted and gives up the others. One that cannot
// be had is published all the same, as the table comes first; it is tried
// again at each call.
func (h *holder) Set(ports map[Socket]Port) {
	h.mu.Lock()
	defer h.mu.Unlock()
	wanted := make(map[heldSocket]bool, len(ports))
	for s, p := range ports {
		address := ""
		if p.Address.IsValid() {
			address = p.Address.String()
		}
		wanted[heldSocket{s, address}] = true
	}
	for s, c := range h.held {
		if !wanted[s] {
			if c != nil {
				c.Close()
			}
			delete(h.held, s)
		}
	}
	for s := range wanted {
		c, tried := h.held[s]
		if c != nil {
			continue
		}
		c, err := bind(s)
		if err != nil && !tried && !absent(err) {
			h.log.Warn("a port that every host answers on is used by something else on this host too", "port", s.Socket, "error", err)
		}
		h.held[s] = c
	}
}

// Failed are the ports that something else on the host has, in order.
func (h *holder) Failed() []Socket {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []Socket
	for s, c := range h.held {
		if c == nil && hasAddress(s.address) {
			all = append(all, s.Socket)
		}
	}
	slices.SortFunc(all, func(a, b Socket) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
	})
	return all
}

// Close gives all ports up.
func (h *holder) Close() { h.Set(nil) }

// bind takes a port without listening on it: what still arrives there is
// refused. The result is nil after an error.
func bind(s heldSocket) (io.Closer, error) {
	family, to := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(s.Port)})
	if a, err := netip.ParseAddr(s.address); err == nil && a.Is4() {
		family, to = unix.AF_INET, &unix.SockaddrInet4{Port: int(s.Port), Addr: a.As4()}
	} else if err == nil {
		to = &unix.SockaddrInet6{Port: int(s.Port), Addr: a.As16()}
	}
	c, err := open(s, family, to)
	if errors.Is(err, unix.EAFNOSUPPORT) && s.address == "" { // a host without IPv6
		return open(s, unix.AF_INET, &unix.SockaddrInet4{Port: int(s.Port)})
	}
	return c, err
}

func open(s heldSocket, family int, to unix.Sockaddr) (io.Closer, error) {
	kind := map[string]int{"tcp": unix.SOCK_STREAM, "udp": unix.SOCK_DGRAM}[s.Protocol]
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	if family == unix.AF_INET6 && s.address == "" {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0) // IPv4 too
	}
	if err == nil {
		err = unix.Bind(fd, to)
	}
	if err != nil {
		_ = unix.Close(fd) // nothing was done with it
		return nil, fmt.Errorf("take port %s: %w", s.Socket, err)
	}
	return os.NewFile(uintptr(fd), s.String()), nil
}

// absent reports whether an address is none of this host's, which then has
// nothing to answer.
func absent(err error) bool { return errors.Is(err, unix.EADDRNOTAVAIL) }

// hasAddress reports whether an address is one of the host's; none stands for
// all.
func hasAddress(address string) bool {
	if address == "" {
		return true
	}
	all, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(all, func(a net.Addr) bool {
		ip, _, err := net.ParseCIDR(a.String())
		return err == nil && ip.Equal(net.ParseIP(address))
	})
}
