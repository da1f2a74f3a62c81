package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// fenceState is what the fence must know over a restart of the agent.
type fenceState struct {
	// Kernel tells one start of the kernel from another: the times are its.
	Kernel string `json:"kernel"`
	// At is when the last question was sent that etcd vouched for the host upon.
	At time.Duration `json:"at"`
	// Taken is the revision at which this host's agent wrote its fence last.
	Taken int64 `json:"taken,omitempty"`
	// Handed means that etcd knows that nobody guards what runs.
	Handed bool `json:"handed,omitempty"`
	// Active says that there is, or may be, something with a fence.
	Active bool `json:"active,omitempty"`
	// Killed are the containers that the fence has stopped.
	Killed []string `json:"killed,omitempty"`

	// known says that At means something.
	known bool
}

// silence is for how long etcd has not vouched for the host.
func (s fenceState) silence(now time.Duration) (d time.Duration, known bool) {
	if s.Handed {
		return 0, true
	}
	return max(now-s.At, 0), s.known
}

// fenceFile keeps a fenceState. Its zero value keeps nothing.
type fenceFile struct{ name, kernel string }

func newFenceFile(dir string) fenceFile {
	if dir == "" {
		return fenceFile{}
	}
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fenceFile{name: filepath.Join(dir, "agent", "fence.json")}
	}
	return fenceFile{name: filepath.Join(dir, "agent", "fence.json"), kernel: strings.TrimSpace(string(b))}
}

// newGuardFile is where the guard notes what it has stopped.
func newGuardFile(dir string) fenceFile {
	f := newFenceFile(dir)
	if f.name != "" {
		f.name = filepath.Join(dir, "agent", "guard.json")
	}
	return f
}

// load reads what an earlier run under the same kernel has kept.
func (f fenceFile) load() (fenceState, error) {
	none := fenceState{Kernel: f.kernel}
	if f.name == "" {
		return none, nil
	}
	b, err := os.ReadFile(f.name)
	if errors.Is(err, os.ErrNotExist) {
		return none, nil
	}
	if err != nil {
		return none, fmt.Errorf("read fence: %w", err)
	}
	var s fenceState
	if err := json.Unmarshal(b, &s); err != nil {
		return none, fmt.Errorf("read fence: %w", err)
	}
	if f.kernel == "" || s.Kernel != f.kernel {
		none.Killed = s.Killed
		return none, nil // nothing of the time before runs
	}
	s.known = true
	return s, nil
}

// save replaces the file as a whole. It need not survive the machine.
func (f fenceFile) save(s fenceState) error {
	if f.name == "" {
		return nil
	}
	s.Kernel = f.kernel
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("keep fence: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(f.name), 0o700); err != nil {
		return fmt.Errorf("keep fence: %w", err)
	}
	if err := os.WriteFile(f.name+".new", b, 0o600); err != nil {
		return fmt.Errorf("keep fence: %w", err)
	}
	if err := os.Rename(f.name+".new", f.name); err != nil {
		return fmt.Errorf("keep fence: %w", err)
	}
	return nil
}

// remove takes the file away.
func (f fenceFile) remove() error {
	if f.name == "" {
		return nil
	}
	if err := os.Remove(f.name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forget fence: %w", err)
	}
	return nil
}

// sinceBoot is the time since the kernel started, with that in which it was
// suspended.
func sinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic("agent: the kernel has no CLOCK_BOOTTIME: " + err.Error()) // there since Linux 2.6.39
	}
	return time.Duration(t.Nano())
}
