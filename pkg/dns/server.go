package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Server answers on one address of the host, over UDP and TCP.
type Server struct {
	// Address is the address to answer on, Port its port.
	Address string
	Port    int
	Handler dns.Handler
	Log     *slog.Logger
}

// EnsureAddress gives the host an address, as a single one on its loopback
// device: packets to it go nowhere else. It is no error when it is there.
func EnsureAddress(address string) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("add address %s: %w", address, err)
	}
	a, err := netlink.ParseAddr(address + "/32")
	if err != nil {
		return fmt.Errorf("add address %s: %w", address, err)
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

func (s *Server) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	addr := net.JoinHostPort(s.Address, strconv.Itoa(s.Port))
	lc := net.ListenConfig{Control: freebind}
	udp, err := lc.ListenPacket(ctx, "udp4", addr)
	if err != nil {
		return fmt.Errorf("answer names: %w", err)
	}
	tcp, err := lc.Listen(ctx, "tcp4", addr)
	if err != nil {
		_ = udp.Close()
		return fmt.Errorf("answer names: %w", err)
	}
	servers := []*dns.Server{
		{PacketConn: udp, Handler: s.Handler, UDPSize: dns.DefaultMsgSize},
		{Listener: tcp, Handler: s.Handler, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second},
	}
	stop := context.AfterFunc(ctx, func() {
		_ = udp.Close()
		_ = tcp.Close()
	})
	defer stop()
	failed := make(chan error, len(servers))
	for _, srv := range servers {
		go func() { failed <- srv.ActivateAndServe() }()
	}
	err = <-failed
	cancel()
	return errors.Join(err, <-failed)
}

// freebind lets a socket have an address that the host does not have yet.
func freebind(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
	}); e != nil {
		return e
	}
	return err
}
