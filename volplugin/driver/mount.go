package driver

import (
	"context"
	"errors"
	"fmt"

	"github.com/docker/go-plugins-helpers/volume"

	"clocker.io/clocker/volplugin/backend"
)

// Mount counts a mount by the caller's id and answers the directory. The same
// id may mount more than once: `docker cp` does so while the container has the
// volume mounted under that id.
func (d *Driver) Mount(r *volume.MountRequest) (*volume.MountResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, b, err := d.find(r.Name)
	if err != nil {
		return nil, fmt.Errorf("mount volume %q: %w", r.Name, err)
	}
	// Backends may be asked again for what is mounted: a crash may have come
	// before the count was written.
	path, err := b.Mount(context.Background(), v.volume(r.Name))
	if err != nil {
		return nil, err
	}
	last := v.LastMount
	v.LastMount = d.cfg.Now().UTC()
	v.count(r.ID, +1)
	if err := d.save(); err != nil {
		v.LastMount = last
		v.count(r.ID, -1)
		return nil, errors.Join(fmt.Errorf("mount volume %q: %w", r.Name, err), d.unmountIfUnused(r.Name, v, b))
	}
	return &volume.MountResponse{Mountpoint: path}, nil
}

// Unmount ends one mount of the caller's id. One that is not known is no
// error: engines say it twice, and of volumes that are gone.
func (d *Driver) Unmount(r *volume.UnmountRequest) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, b, err := d.find(r.Name)
	if err != nil || v.Mounts[r.ID] == 0 {
		return nil
	}
	v.count(r.ID, -1)
	if err := d.unmountIfUnused(r.Name, v, b); err != nil {
		v.count(r.ID, +1)
		return fmt.Errorf("unmount volume %q: %w", r.Name, err)
	}
	if err := d.save(); err != nil {
		// The engine takes it for mounted still, and so must the count.
		v.count(r.ID, +1)
		return fmt.Errorf("unmount volume %q: %w", r.Name, err)
	}
	return nil
}

func (d *Driver) unmountIfUnused(name string, v *entry, b backend.Backend) error {
	if len(v.Mounts) > 0 {
		return nil
	}
	return b.Unmount(context.Background(), v.volume(name))
}
