package nettest

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Sink is a server that takes whatever comes.
type Sink struct {
	mu sync.Mutex
	// sources counts datagrams by whom they seem to come from; guarded by mu.
	sources map[string]int
}

// Sink takes TCP connections to an address, each answered with the digest of
// all that came once the caller has no more, and sends datagrams back as they
// came.
func (n *Namespace) Sink(address string) *Sink {
	n.t.Helper()
	s := &Sink{sources: map[string]int{}}
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
			go func() {
				defer c.Close()
				h := sha256.New()
				if _, err := io.Copy(h, c); err == nil {
					_, _ = c.Write(h.Sum(nil)) // the caller may be gone
				}
			}()
		}
	}()
	go s.echo(p)
	return s
}

func (s *Sink) echo(p net.PacketConn) {
	b := make([]byte, 1<<16)
	for {
		k, from, err := p.ReadFrom(b)
		if err != nil {
			return
		}
		host, _, _ := net.SplitHostPort(from.String())
		s.mu.Lock()
		s.sources[host]++
		s.mu.Unlock()
		_, _ = p.WriteTo(b[:k], from) // whoever it was may be gone
	}
}

// Heard is how many datagrams came from an address.
func (s *Sink) Heard(from string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sources[from]
}

// Deliver sends as many bytes to a [Sink] by TCP, and checks that they came.
func (n *Namespace) Deliver(to string, size int, within time.Duration) error {
	var c net.Conn
	var err error
	n.Do(func() { c, err = net.DialTimeout(protocol("tcp", to), to, within) })
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	b := make([]byte, size)
	_, _ = rand.Read(b) // never fails, see crypto/rand
	if _, err := c.Write(b); err != nil {
		return err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	digest, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	if want := sha256.Sum256(b); !bytes.Equal(digest, want[:]) {
		return errors.New("what came is not what was sent")
	}
	return nil
}

// Exchange sends a datagram of the size to a [Sink] and waits for it to come
// back; whole forbids that it is cut into fragments on its way. from may be
// empty.
func (n *Namespace) Exchange(from, to string, size int, whole bool, within time.Duration) error {
	d := net.Dialer{Timeout: within}
	if from != "" {
		d.LocalAddr = &net.UDPAddr{IP: net.ParseIP(from)}
	}
	if whole {
		d.Control = dontFragment
	}
	var c net.Conn
	var err error
	n.Do(func() { c, err = d.Dial(protocol("udp", to), to) })
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	sent := make([]byte, size)
	_, _ = rand.Read(sent) // never fails, see crypto/rand
	if _, err := c.Write(sent); err != nil {
		return err
	}
	back := make([]byte, 1<<16)
	k, err := c.Read(back)
	if err != nil {
		return err
	}
	if !bytes.Equal(back[:k], sent) {
		return fmt.Errorf("%d bytes came back that are not the %d sent", k, size)
	}
	return nil
}

func dontFragment(network, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		if network == "udp6" {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
		} else {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
		}
	}); e != nil {
		return e
	}
	return err
}

// Ping sends an ICMP echo and waits for the answer. One that is lost is sent
// again after a second, if there is time.
func (n *Namespace) Ping(to string, within time.Duration) error {
	for end := time.Now().Add(within); ; {
		sent := time.Now()
		out, err := n.try("ping", "-n", "-c1", fmt.Sprintf("-W%.2f", min(end.Sub(sent), time.Second).Seconds()), to)
		if err == nil {
			return nil
		}
		again := sent.Add(time.Second)
		if again.After(end) {
			return fmt.Errorf("ping %s: %w: %s", to, err, out)
		}
		<-time.After(time.Until(again))
	}
}
