package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"clocker.io/clocker/volplugin/backend"
)

// Holders counts the mount namespaces of the host in which the volume, or a
// part of it, is mounted: a container that has it is one. Something mounted
// within the volume, as this process sees it, counts too.
//
// It is an error where the host's processes cannot be seen, as in a managed
// plugin without the host's process namespace.
func (b *Backend) Holders(ctx context.Context, v backend.Volume) (int, error) {
	if os.Getpid() == 1 {
		return 0, fmt.Errorf("look for mounts of volume %s: the host's processes cannot be seen", v.Name)
	}
	content := b.Path(v)
	own, err := mounts()
	if err != nil {
		return 0, fmt.Errorf("look for mounts of volume %s: %w", v.Name, err)
	}
	where, ok := locate(own, content)
	if !ok {
		return 0, fmt.Errorf("look for mounts of volume %s: no file system holds %s", v.Name, content)
	}
	n := 0
	if below(own, content) {
		n++
	}
	err = eachNamespace(ctx, func(ms []*mountinfo.Info) {
		for _, m := range ms {
			if where.holds(m) {
				n++
				return
			}
		}
	})
	if err != nil {
		return 0, fmt.Errorf("look for mounts of volume %s: %w", v.Name, err)
	}
	return n, nil
}

// place is a directory as the kernel knows it: the file system and the path
// within that, which mounts of it elsewhere show as their root.
type place struct {
	major, minor int
	path         string
}

// holds reports whether a mount shows the place or something in it.
func (p place) holds(m *mountinfo.Info) bool {
	return m.Major == p.major && m.Minor == p.minor && within(m.Root, p.path)
}

// locate finds the mount that a path is on: the longest mount point above it,
// and of several in one place the last, which covers the others.
func locate(ms []*mountinfo.Info, path string) (place, bool) {
	var on *mountinfo.Info
	for _, m := range ms {
		if within(path, m.Mountpoint) && (on == nil || len(m.Mountpoint) >= len(on.Mountpoint)) {
			on = m
		}
	}
	if on == nil {
		return place{}, false
	}
	rest := strings.TrimPrefix(path, strings.TrimSuffix(on.Mountpoint, "/"))
	return place{on.Major, on.Minor, filepath.Join(on.Root, rest)}, true
}

// below reports whether something is mounted at or within a directory.
func below(ms []*mountinfo.Info, dir string) bool {
	for _, m := range ms {
		if within(m.Mountpoint, dir) {
			return true
		}
	}
	return false
}

func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// mounts are those that this process sees.
func mounts() ([]*mountinfo.Info, error) { return mountinfo.GetMounts(nil) }

// eachNamespace calls f with the mounts of every mount namespace that a
// process is in. Namespaces are told apart by their lists, as every mount has
// a number of its own; their names are for privileged processes only.
func eachNamespace(ctx context.Context, f func([]*mountinfo.Info)) error {
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	seen := make(map[string]bool)
	for _, p := range processes {
		if _, err := strconv.Atoi(p.Name()); err != nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		text, err := os.ReadFile(filepath.Join("/proc", p.Name(), "mountinfo"))
		if err != nil && !ended(err) {
			return err
		}
		if err != nil || seen[string(text)] {
			continue
		}
		seen[string(text)] = true
		ms, err := mountinfo.GetMountsFromReader(bytes.NewReader(text), nil)
		if err != nil {
			return err
		}
		f(ms)
	}
	return nil
}

// ended reports whether an error of /proc says that the process is no more.
func ended(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL)
}
