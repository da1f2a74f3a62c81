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
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
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
	cfg Config

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
	d := &Driver{cfg: cfg}
	var err error
	if d.state, err = load(cfg.Dir); err != nil {
		return nil, err
	}
	if d.state.Boot != cfg.Boot {
		for _, v := range d.state.Volumes {
			v.Mounts = nil
		}
		d.state.Boot = cfg.Boot
	}
	for name, v := range d.state.Volumes {
		b, err := d.backend(v.Backend)
		if err != nil {
			return nil, fmt.Errorf("open volume %s: %w", name, err)
		}
		switch {
		case v.Removing:
			err = d.remove(name, v, b)
		case v.Creating:
			err = d.create(name, v, b)
		}
		if err != nil {
			// It stays as it is; the user may try again.
			cfg.Log.Error("finish interrupted change", "volume", name, "error", err)
		}
	}
	return d, d.save()
}

// Capabilities says "local": a volume is known to, and its content is on, one
// host. Saying "global" would tell schedulers that the same volume is on every
// host. It becomes true, and will be said, once volumes follow their
// containers.
func (d *Driver) Capabilities() *volume.CapabilitiesResponse {
	return &volume.CapabilitiesResponse{Capabilities: volume.Capability{Scope: "local"}}
}

// Create makes a volume. One that exists with equal options is no error; with
// others it is, as is an option that nobody knows.
func (d *Driver) Create(r *volume.CreateRequest) error {
	if err := d.createNamed(r); err != nil {
		return fmt.Errorf("create volume %q: %w", r.Name, err)
	}
	return nil
}

func (d *Driver) createNamed(r *volume.CreateRequest) error {
	if !namePattern.MatchString(r.Name) {
		return errors.New("a name has up to 255 letters, digits, '_', '.' and '-', and starts with a letter or digit")
	}
	b, options, err := d.choose(r.Options)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.state.Volumes[r.Name]
	switch {
	case v == nil:
		v = &entry{ID: newID(), Backend: b.Name(), Options: options, CreatedAt: d.cfg.Now().UTC(), Creating: true}
		d.state.Volumes[r.Name] = v
		if err := d.save(); err != nil {
			delete(d.state.Volumes, r.Name)
			return err
		}
	case v.Removing:
		return errors.New("the volume of that name is being removed: try again")
	case v.Backend != b.Name():
		return fmt.Errorf("it exists with backend %s", v.Backend)
	case !maps.Equal(v.Options, options):
		return fmt.Errorf("it exists with other options: %s", describe(v.Options))
	}
	if !v.Creating {
		return nil
	}
	return errors.Join(d.create(r.Name, v, b), d.save())
}

// create lets the backend make a volume that the state has already; mu is
// held.
func (d *Driver) create(name string, v *entry, b backend.Backend) error {
	if err := b.Create(context.Background(), v.volume(name)); err != nil {
		return err
	}
	v.Creating = false
	return nil
}

// choose picks the backend and checks the options.
func (d *Driver) choose(given map[string]string) (backend.Backend, map[string]string, error) {
	name, ok := given[OptBackend]
	if !ok {
		name = d.cfg.Backends[0].Name()
	}
	b, err := d.backend(name)
	if err != nil {
		return nil, nil, err
	}
	options := map[string]string{}
	var unknown []string
	for k, v := range given {
		switch {
		case k == OptBackend:
		case slices.Contains(b.Options(), k):
			options[k] = v
		default:
			unknown = append(unknown, fmt.Sprintf("%q", k))
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		known := append([]string{OptBackend}, b.Options()...)
		return nil, nil, fmt.Errorf("unknown option %s: backend %s knows %s",
			strings.Join(unknown, ", "), name, strings.Join(known, ", "))
	}
	return b, options, b.Check(options)
}

func (d *Driver) backend(name string) (backend.Backend, error) {
	var names []string
	for _, b := range d.cfg.Backends {
		if b.Name() == name {
			return b, nil
		}
		names = append(names, b.Name())
	}
	return nil, fmt.Errorf("unknown backend %q (there are: %s)", name, strings.Join(names, ", "))
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
	if n := len(v.Mounts); n > 0 {
		return fmt.Errorf("remove volume %q: it is in use: mounted %d times", r.Name, n)
	}
	v.Removing = true
	if err := d.save(); err != nil {
		v.Removing = false
		return fmt.Errorf("remove volume %q: %w", r.Name, err)
	}
	return errors.Join(d.remove(r.Name, v, b), d.save())
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
	status := map[string]any{OptBackend: v.Backend, "mounts": len(v.Mounts)}
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
	v.count(r.ID, +1)
	if err := d.save(); err != nil {
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

// find returns a volume that can be used; mu is held.
func (d *Driver) find(name string) (*entry, backend.Backend, error) {
	v := d.state.Volumes[name]
	if v == nil {
		return nil, nil, ErrNotFound
	}
	b, err := d.backend(v.Backend)
	return v, b, err
}

func (d *Driver) save() error { return d.state.save(d.cfg.Dir) }

// newID returns 32 random hex digits.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return hex.EncodeToString(b[:])
}

func describe(options map[string]string) string {
	if len(options) == 0 {
		return "none"
	}
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(options)) {
		parts = append(parts, k+"="+options[k])
	}
	return strings.Join(parts, ", ")
}
