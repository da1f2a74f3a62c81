package nettest

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// Patience is how long a connection may take that should succeed, and Doubt
// how long one is tried that should not.
const (
	Patience = 5 * time.Second
	Doubt    = 500 * time.Millisecond
)

// Serve answers every TCP connection to the address with the caller's address
// as seen from there, and every UDP packet likewise.
func (n *Namespace) Serve(address string) {
	n.t.Helper()
	var l net.Listener
	var p net.PacketConn
	n.Do(func() {
		l = must(net.Listen(protocol("tcp", address), address))(n.t)
		p = must(net.ListenPacket(protocol("udp", address), address))(n.t)
	})
	n.t.Cleanup(func() { l.Close(); p.Close() }) //nolint:errcheck // the test is over
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, c.RemoteAddr().String()) // the caller may be gone
			c.Close()
		}
	}()
	go func() {
		b := make([]byte, 64)
		for {
			_, from, err := p.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = p.WriteTo([]byte(from.String()), from)
		}
	}()
}

// Ask connects to a server of [Namespace.Serve] and returns the IP address
// that it saw. protocol is "tcp4", "udp6" and so on; from may be empty.
func (n *Namespace) Ask(protocol, from, to string, within time.Duration) (seen string, err error) {
	var c net.Conn
	n.Do(func() {
		d := net.Dialer{Timeout: within}
		if from != "" {
			if ip := net.ParseIP(from); strings.HasPrefix(protocol, "udp") {
				d.LocalAddr = &net.UDPAddr{IP: ip}
			} else {
				d.LocalAddr = &net.TCPAddr{IP: ip}
			}
		}
		c, err = d.Dial(protocol, to)
	})
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(within)); err != nil {
		return "", err
	}
	if strings.HasPrefix(protocol, "udp") {
		if _, err := c.Write([]byte("?")); err != nil {
			return "", err
		}
	}
	b := make([]byte, 64)
	k, err := c.Read(b)
	if err != nil {
		return "", err
	}
	seen, _, err = net.SplitHostPort(string(b[:k]))
	if err != nil {
		return "", fmt.Errorf("%s answered %q", to, b[:k])
	}
	return seen, nil
}

// protocol is the name of a transport for the family of an address with a
// port.
func protocol(transport, address string) string {
	if strings.HasPrefix(address, "[") {
		return transport + "6"
	}
	return transport + "4"
}

// Reaches fails the test unless both TCP and UDP get through; it returns the
// address that the other side saw.
func (n *Namespace) Reaches(t testing.TB, to string) string {
	t.Helper()
	var seen string
	for _, p := range []string{protocol("tcp", to), protocol("udp", to)} {
		var err error
		for end := time.Now().Add(Patience); ; {
			if seen, err = n.Ask(p, "", to, time.Second); err == nil {
				break
			}
			if time.Now().After(end) {
				t.Errorf("%s to %s must get through: %v", p, to, err)
				break
			}
		}
	}
	return seen
}

// NotReaches fails the test if TCP or UDP gets through.
func (n *Namespace) NotReaches(t testing.TB, to string) {
	t.Helper()
	var wg sync.WaitGroup
	for _, p := range []string{protocol("tcp", to), protocol("udp", to)} {
		wg.Go(func() {
			if seen, err := n.Ask(p, "", to, Doubt); err == nil {
				t.Errorf("%s to %s must not get through, but %s was seen there", p, to, seen)
			}
		})
	}
	wg.Wait()
}

// Flow is a UDP socket that stays open.
type Flow struct{ conn net.Conn }

// Dial opens a flow to a server of [Namespace.Serve].
func (n *Namespace) Dial(protocol, to string) Flow {
	n.t.Helper()
	var c net.Conn
	n.Do(func() { c = must(net.Dial(protocol, to))(n.t) })
	n.t.Cleanup(func() { c.Close() })
	return Flow{c}
}

// Answers fails the test unless the server answers on the flow.
func (f Flow) Answers(t testing.TB) {
	t.Helper()
	var err error
	for end := time.Now().Add(Patience); time.Now().Before(end); {
		check(t, f.conn.SetDeadline(time.Now().Add(200*time.Millisecond)))
		if _, err = f.conn.Write([]byte("?")); err != nil {
			continue
		}
		if _, err = f.conn.Read(make([]byte, 64)); err == nil {
			return
		}
	}
	t.Errorf("the flow must be answered: %v", err)
}
