package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"clocker.io/clocker/pkg/model"
)

// hostCheck looks at the host itself.
type hostCheck struct {
	// root is where the host's file system is seen; empty means that it is
	// not seen, and the engine will be the first to complain.
	root string
}

// hostRoot finds the host's file system: as it is for a plain process, at
// /host in a container that has it mounted there.
func hostRoot() string {
	if s, err := os.Stat("/host/etc"); err == nil && s.IsDir() {
		return "/host"
	}
	if _, err := os.Stat("/.dockerenv"); err == nil {
		return ""
	}
	return "/"
}

// mounts reports every bind source that does not exist and shall not be made.
func (h hostCheck) mounts(ms []model.Mount) error {
	if h.root == "" {
		return nil
	}
	var errs []error
	for _, m := range ms {
		if m.Type != model.MountBind || m.CreateHostPath {
			continue
		}
		if _, err := os.Stat(filepath.Join(h.root, m.Source)); errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("mount %s at %s: there is no such path on this host", m.Source, m.Target))
		}
	}
	return errors.Join(errs...)
}

// ports reports every host port that cannot be opened, by opening it.
func (h hostCheck) ports(ctx context.Context, ps []model.Port, held []socket) error {
	var errs []error
	for _, p := range ps {
		s := socketOf(p)
		if p.HostPort == 0 || heldBy(held, s) {
			continue
		}
		if err := tryOpen(ctx, s); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func heldBy(held []socket, s socket) bool {
	for _, h := range held {
		if h.meets(s) {
			return true
		}
	}
	return false
}

func tryOpen(ctx context.Context, s socket) error {
	var lc net.ListenConfig
	addr := net.JoinHostPort(s.IP, strconv.Itoa(int(s.Port)))
	var c interface{ Close() error }
	var err error
	if s.Protocol == "udp" {
		c, err = lc.ListenPacket(ctx, "udp", addr)
	} else {
		c, err = lc.Listen(ctx, "tcp", addr)
	}
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("port %s is taken by another program on this host", s)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("port %s: this host has no address %s", s, s.IP)
	case err != nil:
		return fmt.Errorf("port %s cannot be opened: %w", s, err)
	}
	return c.Close()
}
