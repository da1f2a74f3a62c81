package driver

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/docker/go-plugins-helpers/volume"

	"clocker.io/clocker/volplugin/backend"
)

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
	switch v := d.state.Volumes[r.Name]; {
	case v == nil:
		return d.createNew(r.Name, b, options)
	case v.Creating || v.Removing:
		return errors.New("a change to the volume of that name is not finished: restart the plugin")
	case v.Backend != b.Name():
		return fmt.Errorf("it exists with backend %s", v.Backend)
	case !maps.Equal(v.Options, options):
		return fmt.Errorf("it exists with other options: %s", describe(v.Options))
	}
	return nil
}

// createNew makes a volume that does not exist; mu is held. The state has it
// first, so that a crash leaves nothing that nobody knows of.
func (d *Driver) createNew(name string, b backend.Backend, options map[string]string) error {
	v := &entry{ID: newID(), Backend: b.Name(), Options: options, CreatedAt: d.cfg.Now().UTC(), Creating: true}
	d.state.Volumes[name] = v
	err := d.save()
	if err == nil {
		err = d.create(name, v, b)
	}
	if err == nil {
		return d.save()
	}
	// What the backend has of it stays out of sight, under an id that is
	// never used again.
	delete(d.state.Volumes, name)
	return errors.Join(err, b.Remove(context.Background(), v.volume(name)), d.save())
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
