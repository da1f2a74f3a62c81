package driver

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
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

// Hold takes a port of the host for each binding, all or none. What the
// endpoint held before is given up.
func (h *holder) Hold(endpoint string, bs []binding) ([]policy.Port, error) {
	h.Release(endpoint)
	var ports []policy.Port
	var sockets []io.Closer
	for _, b := range bs {
		p, s, err := take(b)
		if err != nil {
			closeAll(sockets)
			return nil, err
		}
		ports = append(ports, p)
		if s != nil {
			sockets = append(sockets, s)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held[endpoint] = sockets
	return ports, nil
}

// Restore takes ports again that an earlier run of the plugin held. One that
// cannot be had stays published all the same: the filter comes first.
func (h *holder) Restore(endpoint string, ports []policy.Port) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range ports {
		_, s, err := listen(p)
		if err != nil {
			h.log.Warn("published port is used by something else on the host too", "port", p, "error", err)
			continue
		}
		if s != nil {
			h.held[endpoint] = append(h.held[endpoint], s)
		}
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
func take(b binding) (policy.Port, io.Closer, error) {
	candidates, err := b.candidates()
	if err != nil {
		return policy.Port{}, nil, err
	}
	var errs []error
	for _, p := range candidates {
		p, s, err := listen(p)
		if err == nil {
			return p, s, nil
		}
		errs = append(errs, fmt.Errorf("publish port %s: %w", p, err))
	}
	return policy.Port{}, nil, errors.Join(errs...)
}

const dnsPort = 53

// listen takes one port; port 0 takes any and returns which.
func listen(p policy.Port) (policy.Port, io.Closer, error) {
	host := "0.0.0.0"
	if p.HostIP.IsValid() {
		host = p.HostIP.String()
	} else if p.HostPort == dnsPort {
		// On an address of its own the host's DNS listens there, which the
		// filter never translates.
		return p, nil, nil
	}
	at := net.JoinHostPort(host, strconv.Itoa(int(p.HostPort)))
	switch p.Protocol {
	case 6:
		l, err := net.Listen("tcp4", at)
		if err != nil {
			return p, nil, err
		}
		p.HostPort = uint16(l.Addr().(*net.TCPAddr).Port)
		go refuse(l)
		return p, l, nil
	case 17:
		c, err := net.ListenPacket("udp4", at)
		if err != nil {
			return p, nil, err
		}
		p.HostPort = uint16(c.LocalAddr().(*net.UDPAddr).Port)
		return p, c, nil
	}
	if p.HostPort == 0 {
		return p, nil, fmt.Errorf("a port of protocol %d must be named", p.Protocol)
	}
	return p, nil, nil
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
