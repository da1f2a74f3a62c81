package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sync/errgroup"
)

// fillRegistry runs Debian's registry for a moment, on a socket of its own and
// with its data in dir, and pushes the images to it.
func fillRegistry(ctx context.Context, tools, dir string, images []built) error {
	tmp, err := os.MkdirTemp("", "testbed-push-")
	if err != nil {
		return fmt.Errorf("fill registry: %w", err)
	}
	defer os.RemoveAll(tmp)
	socket, config := filepath.Join(tmp, "s"), filepath.Join(tmp, "config.yml")
	text := registryConfig(socket, dir) + "  net: unix\n"
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return fmt.Errorf("fill registry: %w", err)
	}
	cmd, err := toolCommand(tools, "usr/bin/docker-registry", "serve", config)
	if err != nil {
		return fmt.Errorf("fill registry: %w", err)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("fill registry: %w", err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	err = poll(ctx.Done(), 20*time.Second, "registry", func() error {
		c, err := net.Dial("unix", socket)
		if err != nil {
			return err
		}
		return c.Close()
	})
	if err == nil {
		// The name is for the requests only; plain HTTP is spoken to it.
		err = push(ctx, "localhost:5000", dial, images)
	}
	if err != nil {
		return errors.Join(err, errors.New(lastLines(out.Bytes(), 5)))
	}
	return nil
}

// toolCommand runs a program of a root tree from outside it, by the tree's own
// dynamic linker and libraries.
func toolCommand(tree, program string, args ...string) (*exec.Cmd, error) {
	linkers, err := filepath.Glob(filepath.Join(tree, "lib64/ld-linux-*.so.*"))
	if err == nil && len(linkers) == 0 {
		linkers, err = filepath.Glob(filepath.Join(tree, "lib/ld-linux-*.so.*"))
	}
	if err != nil || len(linkers) == 0 {
		return nil, fmt.Errorf("find dynamic linker in %s: %w", tree, errors.Join(err, os.ErrNotExist))
	}
	var dirs string
	for _, pattern := range libraryDirs {
		found, err := filepath.Glob(filepath.Join(tree, pattern))
		if err != nil {
			return nil, fmt.Errorf("find libraries in %s: %w", tree, err)
		}
		for _, d := range found {
			dirs += d + ":"
		}
	}
	cmd := exec.Command(linkers[0], append([]string{"--library-path", dirs, filepath.Join(tree, program)}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd, nil
}

// push uploads images to a registry that speaks plain HTTP; by dial, if any.
func push(ctx context.Context, registry string, dial func(context.Context, string, string) (net.Conn, error), images []built) error {
	transport := &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 8}
	defer transport.CloseIdleConnections()
	g, ctx := errgroup.WithContext(ctx)
	for _, b := range images {
		g.Go(func() error {
			for _, n := range b.names {
				tag, err := name.NewTag(registry+"/"+n, name.Insecure)
				if err == nil {
					err = remote.Write(tag, b.image, remote.WithContext(ctx), remote.WithTransport(transport))
				}
				if err != nil {
					return fmt.Errorf("push image %s: %w", n, err)
				}
			}
			return nil
		})
	}
	return g.Wait()
}
