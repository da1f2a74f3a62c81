package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"
)

// Server answers on one address of the host, over UDP and TCP.
type Server struct {
	// Address is the address to answer on, IPv4 or IPv6, Port its port.
	Address string
	Port    int
	Handler *Handler
	Log     *slog.Logger
}

// EnsureAddress gives the host an address, as a single one on its loopback
// device: packets to it go nowhere else. It is no error when it is there.
func EnsureAddress(address string) error {
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return fmt.Errorf("add address: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("add address %s: %w", address, err)
	}
	a := &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(addr.BitLen(), addr.BitLen())}}
	if addr.Is6() {
		a.Flags = unix.IFA_F_NODAD // nobody else can have it
	}
	if err := netlink.AddrAdd(lo, a); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add address %s: %w", address, err)
	}
	return nil
}

// Run serves until ctx ends. While the port is taken it tries again.
func (s *Server) Run(ctx context.Context) {
	told := ""
	for ctx.Err() == nil {
		err := s.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil && err.Error() != told {
			told = err.Error()
			s.Log.Error("names are not answered, trying again", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// maxConnections bounds clients over TCP.
const maxConnections = 256

func (s *Server) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	addr := net.JoinHostPort(s.Address, strconv.Itoa(s.Port))
	lc := net.ListenConfig{Control: control}
	tcp, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("answer names: %w", err)
	}
	conns := make([]*net.UDPConn, readers())
	closeAll := func() {
		_ = tcp.Close()
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
	}
	for i := range conns {
		pc, err := lc.ListenPacket(ctx, "udp", addr)
		if err != nil {
			closeAll()
			return fmt.Errorf("answer names: %w", err)
		}
		conns[i] = pc.(*net.UDPConn)
	}
	stop := context.AfterFunc(ctx, closeAll)
	defer stop()
	failed := make(chan error, len(conns)+1)
	go func() {
		srv := &dns.Server{
			Listener: netutil.LimitListener(tcp, maxConnections), Handler: s.Handler,
			ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second,
		}
		failed <- srv.ActivateAndServe()
	}()
	slow := newSlow(s.Handler)
	for _, c := range conns {
		go func() { failed <- s.Handler.serveUDP(c, slow) }()
	}
	err = <-failed
	cancel()
	for range conns {
		err = errors.Join(err, <-failed)
	}
	slow.wait()
	return err
}

// control lets a socket have an address that the host does not have yet, and
// share it with others of its kind: the kernel spreads clients over them.
func control(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		err = errors.Join(
			unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1),
		)
	}); e != nil {
		return e
	}
	return err
}
