// Package hostclean takes off a machine what Clocker leaves outside of the
// engine: its files and sockets and, by a function that it is given, the
// kernel state of its networks. It runs on that machine, in a container in its network
// namespace with its directories mounted below /host.
//
// It touches nothing that is not Clocker's by name, and may be repeated.
//
// Design page: docs/design/fleet.md.
package hostclean

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"clocker.io/clocker/pkg/hostconfig"
)

// The machine's directories in the container. Below ParentRoot are /etc,
// /var/lib and /run without what is mounted in them; below ContentRoot our own
// directories as the machine sees them, which may be mounts of their own.
const (
	ParentRoot  = "/host"
	ContentRoot = "/clean"
)

// Directories are ours, on the machine, with all that is in them; Parents is
// where they are.
var (
	Directories = []string{hostconfig.Dir, hostconfig.StateDir, hostconfig.RunDir}
	Parents     = []string{"/etc", "/var/lib", "/run"}
)

// socket is our plugin's well-known one.
const socket = "/run/docker/plugins/clocker.sock"

// Report says what was there and is gone.
type Report struct {
	Paths  []string `json:"paths,omitempty"`
	Kernel []string `json:"kernel,omitempty"`
}

// Run cleans the machine and writes a [Report] as JSON. kernel takes the
// kernel state of networks away and says what it removed; everything is tried
// even when a part of it goes wrong.
func Run(ctx context.Context, out io.Writer, kernel func(ctx context.Context) ([]string, error)) error {
	return run(ctx, out, parts{
		kernel: kernel,
		paths:  func() ([]string, error) { return RemovePaths(ParentRoot, ContentRoot) },
	})
}

// parts are what a machine is cleaned of, in that order.
type parts struct {
	kernel func(ctx context.Context) ([]string, error)
	paths  func() ([]string, error)
}

func run(ctx context.Context, out io.Writer, p parts) error {
	var r Report
	var errs []error
	var err error
	if r.Kernel, err = p.kernel(ctx); err != nil {
		errs = append(errs, fmt.Errorf("remove kernel state: %w", err))
	}
	if r.Paths, err = p.paths(); err != nil {
		errs = append(errs, err)
	}
	if err := json.NewEncoder(out).Encode(r); err != nil {
		errs = append(errs, fmt.Errorf("write report: %w", err))
	}
	return errors.Join(errs...)
}

// RemovePaths empties our directories, seen below content, and removes them,
// seen below parents, unless they are mounts: those stay, empty. It returns
// what was there and is gone.
func RemovePaths(parents, content string) ([]string, error) {
	var gone []string
	var errs []error
	for _, d := range Directories {
		removed, err := removeDirectory(filepath.Join(parents, d), filepath.Join(content, d))
		if err != nil {
			errs = append(errs, fmt.Errorf("remove %s: %w", d, err))
		}
		if removed {
			gone = append(gone, d)
		}
	}
	switch err := os.Remove(filepath.Join(parents, socket)); {
	case err == nil:
		gone = append(gone, socket)
	case !errors.Is(err, os.ErrNotExist):
		errs = append(errs, fmt.Errorf("remove socket: %w", err))
	}
	return gone, errors.Join(errs...)
}

func removeDirectory(outer, inner string) (bool, error) {
	es, err := os.ReadDir(inner)
	if err != nil {
		return false, err
	}
	for _, e := range es {
		if err := os.RemoveAll(filepath.Join(inner, e.Name())); err != nil {
			return false, err
		}
	}
	in, err := os.Stat(inner)
	if err != nil {
		return len(es) > 0, err
	}
	out, err := os.Lstat(outer)
	if err != nil {
		return len(es) > 0, err
	}
	// A directory that something is mounted on is another one from here.
	if !os.SameFile(in, out) {
		return len(es) > 0, nil
	}
	return true, os.Remove(outer)
}
