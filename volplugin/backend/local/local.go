// Package local keeps volumes in directories of the host's own file system:
//
//	<root>/volumes/<id>/content   what containers see
//	<root>/removed/<id>           what is being deleted
//
// The content is a directory of its own, so that what else a backend must keep
// beside it never shows in the container. It touches nothing outside its root.
//
// Design page: docs/design/volumes.md.
package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"clocker.io/clocker/volplugin/backend"
)

// Backend is the local backend.
type Backend struct {
	root string
	log  *slog.Logger
	// deletions are directories on their way out.
	deletions sync.WaitGroup
}

var _ backend.Backend = (*Backend)(nil)

// Open makes the backend's directories under root, which is absolute, and goes
// on with deletions that were cut short.
func Open(root string, log *slog.Logger) (*Backend, error) {
	if !filepath.IsAbs(root) {
		return nil, fmt.Errorf("open local volumes: %q is not an absolute path", root)
	}
	b := &Backend{root: filepath.Clean(root), log: log.With("backend", "local")}
	for _, dir := range []string{b.dir("volumes"), b.dir("removed")} {
		// Only root walks to a volume from outside a container.
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("open local volumes: %w", err)
		}
	}
	// Mounts are listed without symbolic links.
	real, err := filepath.EvalSymlinks(b.root)
	if err != nil {
		return nil, fmt.Errorf("open local volumes: %w", err)
	}
	b.root = real
	left, err := os.ReadDir(b.dir("removed"))
	if err != nil {
		return nil, fmt.Errorf("open local volumes: %w", err)
	}
	for _, e := range left {
		b.delete(b.dir("removed", e.Name()))
	}
	return b, nil
}

// Close waits for deletions.
func (b *Backend) Close() { b.deletions.Wait() }

// Name is "local".
func (b *Backend) Name() string { return "local" }

// Options is empty: a directory takes none.
func (b *Backend) Options() []string { return nil }

// Check has nothing to check.
func (b *Backend) Check(map[string]string) error { return nil }

// Create makes the volume's directory.
func (b *Backend) Create(_ context.Context, v backend.Volume) error {
	if err := os.Mkdir(b.dir("volumes", v.ID), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make directory of volume %s: %w", v.Name, err)
	}
	content := b.Path(v)
	if err := os.Mkdir(content, 0o755); errors.Is(err, os.ErrExist) {
		// Its mode and owner are the containers' by now.
		return errors.Join(flush(b.dir("volumes", v.ID)), flush(b.dir("volumes")))
	} else if err != nil {
		return fmt.Errorf("make directory of volume %s: %w", v.Name, err)
	}
	// The umask of the process must not decide what containers can read.
	if err := os.Chmod(content, 0o755); err != nil {
		return fmt.Errorf("make directory of volume %s: %w", v.Name, err)
	}
	// The state that says it is made must not outlive a power cut alone.
	if err := errors.Join(flush(b.dir("volumes", v.ID)), flush(b.dir("volumes"))); err != nil {
		return fmt.Errorf("make directory of volume %s: %w", v.Name, err)
	}
	return nil
}

// Mount returns the directory. One that has gone is an error, never made anew:
// an empty volume would look like lost data.
func (b *Backend) Mount(_ context.Context, v backend.Volume) (string, error) {
	path := b.Path(v)
	i, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("mount volume %s: its directory %s is gone", v.Name, path)
	case err != nil:
		return "", fmt.Errorf("mount volume %s: %w", v.Name, err)
	case !i.IsDir():
		return "", fmt.Errorf("mount volume %s: %s is no directory", v.Name, path)
	}
	return path, nil
}

// Unmount has nothing to do.
func (b *Backend) Unmount(context.Context, backend.Volume) error { return nil }

// Path is the volume's directory, mounted or not.
func (b *Backend) Path(v backend.Volume) string { return b.dir("volumes", v.ID, "content") }

// Remove puts the volume out of reach at once and deletes its content in the
// background: an engine does not wait for a million files.
func (b *Backend) Remove(_ context.Context, v backend.Volume) error {
	removed := b.dir("removed", v.ID)
	err := os.Rename(b.dir("volumes", v.ID), removed)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove volume %s: %w", v.Name, err)
	}
	b.delete(removed)
	if err := errors.Join(flush(b.dir("removed")), flush(b.dir("volumes"))); err != nil {
		// It is out of reach; a power cut now may bring the directory
		// back, under an id that is in no use.
		b.log.Warn("flush removal of volume", "volume", v.Name, "error", err)
	}
	return nil
}

// flush puts a directory's list of names on the disk.
func flush(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (b *Backend) delete(path string) {
	b.deletions.Go(func() {
		if err := removeAll(path); err != nil {
			b.log.Error("delete removed volume; the next start tries again", "path", path, "error", err)
		}
	})
}

// removeAll deletes a directory and all in it, but nothing that is mounted
// there: that belongs to somebody else.
func removeAll(path string) error {
	ms, err := mounts()
	if err != nil {
		return err
	}
	if below(ms, path) {
		return errors.New("something is mounted in it")
	}
	return os.RemoveAll(path)
}

func (b *Backend) dir(parts ...string) string {
	return filepath.Join(append([]string{b.root}, parts...)...)
}
