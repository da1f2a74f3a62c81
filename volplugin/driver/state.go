package driver

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/moby/sys/atomicwriter"
	"golang.org/x/sys/unix"

	"clocker.io/clocker/volplugin/backend"
)

// stateVersion is the layout of the state file that this program reads and
// writes.
const stateVersion = 1

// state is the content of the state file.
type state struct {
	Version int `json:"version"`
	// Boot is the boot in which the mounts were counted.
	Boot    string            `json:"boot"`
	Volumes map[string]*entry `json:"volumes"`
}

// entry is one volume.
type entry struct {
	ID        string            `json:"id"`
	Backend   string            `json:"backend"`
	Options   map[string]string `json:"options,omitempty"`
	CreatedAt time.Time         `json:"createdAt"`
	// Mounts counts mounts by the id that the engine gave.
	Mounts map[string]int `json:"mounts,omitempty"`
	// LastMount is when the newest of them was counted.
	LastMount time.Time `json:"lastMount,omitzero"`
	// Creating and Removing are changes that the backend may not have
	// finished.
	Creating bool `json:"creating,omitempty"`
	Removing bool `json:"removing,omitempty"`
}

// there reports whether the volume is all there: a half made one must not be
// shown, or the engine would not ask for it to be made.
func (e *entry) there() bool { return !e.Creating && !e.Removing }

func (e *entry) volume(name string) backend.Volume {
	return backend.Volume{ID: e.ID, Name: name, Options: e.Options, CreatedAt: e.CreatedAt}
}

// count changes how often an id has the volume mounted.
func (e *entry) count(id string, by int) {
	if e.Mounts == nil {
		e.Mounts = map[string]int{}
	}
	if e.Mounts[id] += by; e.Mounts[id] <= 0 {
		delete(e.Mounts, id)
	}
}

// mounts is how often the volume is mounted, by all ids.
func (e *entry) mounts() int {
	n := 0
	for _, count := range e.Mounts {
		n += count
	}
	return n
}

func file(dir string) string { return filepath.Join(dir, "volumes.json") }

// acquire keeps a second process away from the state until the file is closed.
func acquire(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open volume state: %w", err)
	}
	f, err := os.OpenFile(file(dir)+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open volume state: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("open volume state %s: another process has it open: %w", dir, err)
	}
	return f, nil
}

// load reads the state of a directory; without a file it is empty.
func load(dir string) (state, error) {
	s := state{Version: stateVersion, Volumes: map[string]*entry{}}
	b, err := os.ReadFile(file(dir))
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("read volume state: %w", err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("read volume state %s: %w", file(dir), err)
	}
	if s.Version != stateVersion {
		return s, fmt.Errorf("read volume state %s: it has layout %d, this program knows %d", file(dir), s.Version, stateVersion)
	}
	if s.Volumes == nil {
		s.Volumes = map[string]*entry{}
	}
	for name, v := range s.Volumes {
		if v == nil || v.ID == "" || v.ID != filepath.Base(v.ID) || v.ID == "." || v.ID == ".." {
			return s, fmt.Errorf("read volume state %s: volume %q has no valid id", file(dir), name)
		}
	}
	return s, nil
}

// save puts the state on the disk in one step.
func (s state) save(dir string) error {
	b, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return fmt.Errorf("write volume state: %w", err)
	}
	if err := atomicwriter.WriteFile(file(dir), append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write volume state: %w", err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("write volume state: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("write volume state: %w", err)
	}
	return nil
}
