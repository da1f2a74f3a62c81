package driver

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"

	"clocker.io/clocker/netplugin/policy"
)

// holder keeps the host's ports that are published: it listens on each, so
// that nothing else on the host gets it, nor an engine for another container.
// Connections never reach it, as the filter translates them before; one that
// does is closed.
type holder struct {
	log *slog.Logger
	mu  sync.Mutex
	// held are the open sockets by endpoint; guarded by mu.
	held map[string][]io.Closer
}

func newHolder(log *slog.Logger) *holder {
	return &holder{log: log, held: map[string][]io.Closer{}}
}

// families says which address families a container has.
type families struct{ v4, v6 bool }

// of are the networks of Go's package net that a port is listened on: those
// of the families that both the container and the host's address have.
func (f families) of(protocol string, at netip.Addr) []string {
	var all []string
	if f.v4 && (!at.IsValid() || at.Is4()) {
		all = append(all, protocol+"4")
	}
	if f.v6 && (!at.IsValid() || at.Is6()) {
		all = append(all, protocol+"6")
	}
	return all
}

// Hold takes a port of the host for each binding, all or none. What the
// endpoint held before is given up.
func (h *holder) Hold(endpoint string, has families, bs []binding) ([]policy.Port, error) {
	h.Release(endpoint)
	var ports []policy.Port
	var sockets []io.Closer
	for _, b := range bs {
		p, s, err := take(has, b)
		if err != nil {
			closeAll(sockets)
			return nil, err
		}
		ports = append(ports, p)
		sockets = append(sockets, s...)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held[endpoint] = sockets
	return ports, nil
}

// Restore takes ports again that an earlier run of the plugin held. One that
// cannot be had stays published all the same: the filter comes first.
func (h *holder) Restore(endpoint string, has families, ports []policy.Port) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range ports {
		_, s, err := listen(has, p)
		if err != nil {
			h.log.Warn("published port is used by something else on the host too", "port", p, "error", err)
			continue
		}
		h.held[endpoint] = append(h.held[endpoint], s...)
	}
}

// Release gives an endpoint's ports up.
func (h *holder) Release(endpoint string) {
	h.mu.Lock()
	sockets := h.held[endpoint]
	delete(h.held, endpoint)
	h.mu.Unlock()
	closeAll(sockets)
}

func closeAll(cs []io.Closer) {
	for _, c := range cs {
		c.Close()
	}
}

// take takes the first port that can be had.
func take(has families, b binding) (policy.Port, []io.Closer, error) {
	candidates, err := b.candidates()
	if err != nil {
		return policy.Port{}, nil, err
	}
	for _, p := range candidates {
		p, s, e := listen(has, p)
		if e == nil {
			return p, s, nil
		}
		if err == nil { // of a range the first says enough
			err = fmt.Errorf("publish port %s: %w", p, e)
		}
	}
	if n := len(candidates); n > 1 {
		err = fmt.Errorf("none of the ports from %d to %d can be had: %w", candidates[0].HostPort, candidates[n-1].HostPort, err)
	}
	return policy.Port{}, nil, err
}

const dnsPort = 53

// anyTries is how often a port that is free in one family is looked for in
// the other.
const anyTries = 16

// listen takes one port, in each family that it is published in; port 0 takes
// any and returns which.
func listen(has families, p policy.Port) (policy.Port, []io.Closer, error) {
	name, ok := map[uint8]string{6: "tcp", 17: "udp"}[p.Protocol]
	on := has.of(name, p.HostIP)
	switch {
	case len(on) == 0:
		return p, nil, fmt.Errorf("the container has no address of the family of %s on this network", p.HostIP)
	case (!p.HostIP.IsValid() || p.HostIP.IsUnspecified()) && p.HostPort == dnsPort:
		// On an address of its own the host's DNS listens there, which the
		// filter never translates.
		return p, nil, nil
	case !ok && p.HostPort == 0:
		return p, nil, fmt.Errorf("a port of protocol %d must be named", p.Protocol)
	case !ok:
		return p, nil, nil
	}
	wanted := p.HostPort
	for try := 1; ; try++ {
		p.HostPort = wanted
		s, err := listenAll(on, &p)
		if err == nil || wanted != 0 || try == anyTries {
			return p, s, err
		}
	}
}

// listenAll takes one port in several families, all or none.
func listenAll(on []string, p *policy.Port) ([]io.Closer, error) {
	var open []io.Closer
	for _, name := range on {
		host := map[byte]string{'4': "0.0.0.0", '6': "::"}[name[len(name)-1]]
		if p.HostIP.IsValid() {
			host = p.HostIP.String()
		}
		c, port, err := listenOn(name, net.JoinHostPort(host, strconv.Itoa(int(p.HostPort))))
		if err != nil {
			closeAll(open)
			return nil, err
		}
		p.HostPort, open = port, append(open, c)
	}
	return open, nil
}

// listenOn takes one port of one family and protocol.
func listenOn(name, at string) (io.Closer, uint16, error) {
	if name[:3] == "tcp" {
		l, err := net.Listen(name, at)
		if err != nil {
			return nil, 0, err
		}
		go refuse(l)
		return l, uint16(l.Addr().(*net.TCPAddr).Port), nil
	}
	c, err := net.ListenPacket(name, at)
	if err != nil {
		return nil, 0, err
	}
	return c, uint16(c.LocalAddr().(*net.UDPAddr).Port), nil
}

// refuse closes what is connected, until the listener is closed.
func refuse(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		c.Close()
	}
}
