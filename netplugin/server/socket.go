package server

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Listen opens a plugin socket that only root can reach. A socket file that a
// killed process left behind is replaced; one that something still answers on
// is not.
//
// Closing the listener removes the file.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("open plugin socket: %w", err)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		c.Close()
		return nil, fmt.Errorf("open plugin socket %s: another process is serving it", path)
	case errors.Is(err, os.ErrNotExist):
	default:
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("remove stale plugin socket: %w", err)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open plugin socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("protect plugin socket: %w", err)
	}
	return l, nil
}

// Serve answers on a socket until the listener is closed.
func (s *Server) Serve(l net.Listener) error {
	err := s.handler.Serve(l)
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fmt.Errorf("serve %s: %w", l.Addr(), err)
}
