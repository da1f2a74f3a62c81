// Package driver answers an engine's volume calls (docker.volumedriver/1.0)
// for one host: which volumes there are, of which backend, and who has each
// mounted. That is kept in one file that is on the disk before a call is
// answered, so a killed plugin goes on where it was.
//
// It never waits for anything outside the host: Get and List answer from
// memory, because an engine takes an error for "there is no such volume".
//
// Design page: docs/design/volumes.md.
package driver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/docker/go-plugins-helpers/volume"

	"clocker.io/clocker/volplugin/backend"
)

// OptBackend is the option of `docker volume create -o` that chooses the
// backend.
const OptBackend = "backend"

// Config is what a driver needs; all but Now must be set.
type Config struct {
	// Dir is where the state file is kept.
	Dir string
	// Backends are those that users may ask for; the first is the default.
	Backends []backend.Backend
	// Boot differs for each boot of the host: after one nothing is mounted.
	Boot string
	Log  *slog.Logger
	// Now is the clock; nil means [time.Now].
	Now func() time.Time
}

// Driver is one host's volumes. It implements [volume.Driver] and is safe for
// concurrent use.
type Driver struct {
	cfg  Config
	lock *os.File

	mu    sync.Mutex // held over every call: a backend's calls are short
	state state
}

var _ volume.Driver = (*Driver)(nil)

// ErrNotFound means that there is no such volume.
var ErrNotFound = errors.New("no such volume")

var namePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$`)

// Open reads the state and finishes what a crash cut short.
func Open(cfg Config) (*Driver, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	lock, err := acquire(cfg.Dir)
	if err != nil {
		return nil, err
	}
	d := &Driver{cfg: cfg, lock: lock}
	if err := d.open(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return d, nil
}

// Close lets another process open the state.
func (d *Driver) Close() error { return d.lock.Close() }

func (d *Driver) open() error {
	var err error
	if d.state, err = load(d.cfg.Dir); err != nil {
		return err
	}
	if d.state.Boot != d.cfg.Boot {
		for _, v := range d.state.Volumes {
			v.Mounts = nil
		}
		d.state.Boot = d.cfg.Boot
	}
	for name, v := range d.state.Volumes {
		b, err := d.backend(v.Backend)
		if err != nil {
			return fmt.Errorf("open volume %s: %w", name, err)
		}
		switch {
		case v.Removing:
			err = d.remove(name, v, b)
		case v.Creating:
			err = d.create(name, v, b)
		}
		if err != nil {
			// The next start tries again.
			d.cfg.Log.Error("finish interrupted change", "volume", name, "error", err)
		}
	}
	return d.save()
}

// Capabilities says "local": a volume is known to, and its content is on, one
// host. Saying "global" would tell schedulers that the same volume is on every
// host. It becomes true, and will be said, once volumes follow their
// containers.
func (d *Driver) Capabilities() *volume.CapabilitiesResponse {
	return &volume.CapabilitiesResponse{Capabilities: volume.Capability{Scope: "local"}}
}

// Remove takes a volume and its content away. It is refused while a container
// has it mounted.
func (d *Driver) Remove(r *volume.RemoveRequest) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, b, err := d.find(r.Name)
	if err != nil {
		return fmt.Errorf("remove volume %q: %w", r.Name, err)
	}
	if err := d.unused(r.Name, v, b); err != nil {
		return fmt.Errorf("remove volume %q: %w", r.Name, err)
	}
	v.Removing = true
	if err = d.save(); err == nil {
		err = d.remove(r.Name, v, b)
	}
	if err != nil {
		v.Removing = false
		return errors.Join(fmt.Errorf("remove volume %q: %w", r.Name, err), d.save())
	}
	return d.save()
}

// remove lets the backend take a volume away and then forgets it; mu is held.
func (d *Driver) remove(name string, v *entry, b backend.Backend) error {
	if err := b.Remove(context.Background(), v.volume(name)); err != nil {
		return err
	}
	delete(d.state.Volumes, name)
	return nil
}

// List answers every volume.
func (d *Driver) List() (*volume.ListResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := &volume.ListResponse{Volumes: []*volume.Volume{}}
	for _, name := range slices.Sorted(maps.Keys(d.state.Volumes)) {
		if v := d.state.Volumes[name]; v.there() {
			r.Volumes = append(r.Volumes, d.describe(name, v))
		}
	}
	return r, nil
}

// Get answers one volume; no volume and no error mean that there is none.
func (d *Driver) Get(r *volume.GetRequest) (*volume.GetResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.state.Volumes[r.Name]
	if v == nil || !v.there() {
		return &volume.GetResponse{}, nil
	}
	return &volume.GetResponse{Volume: d.describe(r.Name, v)}, nil
}

func (d *Driver) describe(name string, v *entry) *volume.Volume {
	b, err := d.backend(v.Backend)
	if err != nil {
		panic(err) // Open has looked at every volume's backend.
	}
	status := map[string]any{OptBackend: v.Backend, "mounts": v.mounts()}
	return &volume.Volume{
		Name: name, Mountpoint: b.Path(v.volume(name)), CreatedAt: v.CreatedAt.Format(time.RFC3339), Status: status,
	}
}

// Path answers where a volume's content is; "" while it is not mounted.
func (d *Driver) Path(r *volume.PathRequest) (*volume.PathResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, b, err := d.find(r.Name)
	if err != nil {
		return nil, fmt.Errorf("find volume %q: %w", r.Name, err)
	}
	return &volume.PathResponse{Mountpoint: b.Path(v.volume(r.Name))}, nil
}

// find returns a volume that can be used; mu is held.
func (d *Driver) find(name string) (*entry, backend.Backend, error) {
	v := d.state.Volumes[name]
	if v == nil || !v.there() {
		return nil, nil, ErrNotFound
	}
	b, err := d.backend(v.Backend)
	return v, b, err
}

func (d *Driver) save() error { return d.state.save(d.cfg.Dir) }
