package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// usageEvery is how often the host is looked at, and so the least time between
// two writes. usageOver is what CPU usage is measured over. usageMoved is how
// much must have changed for a write: a fleet of 1,000 busy hosts writes at
// most 100 times a second.
const (
	usageEvery = 10 * time.Second
	usageOver  = 30 * time.Second
	usageMoved = 0.05
)

// usage publishes how busy the host is.
type usage struct {
	identity
	store   *store.Store
	log     *slog.Logger
	now     func() time.Time
	machine machineFacts
}

// cpuTimes is a reading of the machine's CPU clocks, in ticks.
type cpuTimes struct {
	at          time.Time
	busy, total uint64
}

// run publishes until ctx ends.
func (u *usage) run(ctx context.Context) {
	var times []cpuTimes
	var last record.HostUsage
	wait := time.Second // the first word comes soon
	for {
		if t, err := u.machine.cpu(u.now()); err != nil {
			u.log.Debug("CPU cannot be read", "error", err)
		} else {
			times = recent(append(times, t))
		}
		if len(times) > 1 {
			now := u.machine.usage(ctx, u.log)
			now.CPU = share(times[0], times[len(times)-1])
			if moved(last, now, u.machine.sizes()) {
				if err := u.put(ctx, now); err != nil {
					u.log.Debug("usage cannot be written", "error", err)
				} else {
					last = now
				}
			}
			wait = usageEvery
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

func (u *usage) put(ctx context.Context, now record.HostUsage) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	now.At = u.now()
	// A host that was removed meanwhile must not leave a key behind.
	_, err := u.store.Txn().Exists(u.store.Keys.HostSpec(u.Host)).Put(u.store.Keys.HostUsage(u.Host), now).Commit(ctx)
	return err
}

// recent drops the readings that are older than is measured over, but for one.
func recent(times []cpuTimes) []cpuTimes {
	newest := times[len(times)-1].at
	for len(times) > 2 && newest.Sub(times[1].at) >= usageOver {
		times = times[1:]
	}
	return times
}

// share is how much of the CPUs was in use between two readings, 0 to 1.
func share(a, b cpuTimes) float64 {
	if b.total <= a.total || b.busy < a.busy {
		return 0
	}
	return math.Round(1000*float64(b.busy-a.busy)/float64(b.total-a.total)) / 1000
}

// sizes are what usage is held against.
type sizes struct{ memory, disk int64 }

// moved reports whether usage has changed enough to be worth a write.
func moved(was, is record.HostUsage, of sizes) bool {
	part := func(a, b, of float64) bool { return of > 0 && math.Abs(a-b)/of >= usageMoved }
	return was.At.IsZero() && was == (record.HostUsage{}) ||
		was.Containers != is.Containers ||
		part(was.CPU, is.CPU, 1) ||
		part(float64(was.MemoryUsed), float64(is.MemoryUsed), float64(of.memory)) ||
		part(float64(was.DiskFree), float64(is.DiskFree), float64(of.disk)) ||
		part(was.LoadAverage, is.LoadAverage, math.Max(was.LoadAverage, 1)) && math.Abs(was.LoadAverage-is.LoadAverage) >= 0.5
}

// usage is all but the CPU.
func (m machineFacts) usage(ctx context.Context, log *slog.Logger) record.HostUsage {
	var h record.HostUsage
	if text, err := os.ReadFile(filepath.Join(m.proc, "meminfo")); err == nil {
		total, available := parseMemory(string(text))
		h.MemoryUsed = total - available
	}
	if text, err := os.ReadFile(filepath.Join(m.proc, "loadavg")); err == nil {
		first, _, _ := strings.Cut(string(text), " ")
		h.LoadAverage, _ = strconv.ParseFloat(first, 64) // the kernel writes a number
	}
	var s unix.Statfs_t
	if unix.Statfs(m.disk, &s) == nil {
		h.DiskFree = int64(s.Bavail) * s.Bsize //nolint:gosec // a disk has less than 8 EiB
	}
	if m.engine != nil {
		if inv, err := m.engine.Inventory(ctx); err == nil {
			h.Containers = inv.Running
		} else {
			log.Debug("engine's inventory cannot be read", "error", err)
		}
	}
	return h
}

func (m machineFacts) sizes() sizes {
	var out sizes
	if text, err := os.ReadFile(filepath.Join(m.proc, "meminfo")); err == nil {
		out.memory, _ = parseMemory(string(text))
	}
	var s unix.Statfs_t
	if unix.Statfs(m.disk, &s) == nil {
		out.disk = int64(s.Blocks) * s.Bsize //nolint:gosec // as above
	}
	return out
}

func (m machineFacts) cpu(at time.Time) (cpuTimes, error) {
	text, err := os.ReadFile(filepath.Join(m.proc, "stat"))
	if err != nil {
		return cpuTimes{}, err
	}
	t, err := parseCPU(string(text))
	t.at = at
	return t, err
}

// parseCPU reads the first line of /proc/stat (proc_stat(5)): user, nice,
// system, idle, iowait, irq, softirq, steal; what guests used is in user.
func parseCPU(text string) (cpuTimes, error) {
	line, _, _ := strings.Cut(text, "\n")
	f := strings.Fields(line)
	if len(f) < 5 || f[0] != "cpu" {
		return cpuTimes{}, errors.New("read CPU times: no line of all CPUs")
	}
	var t cpuTimes
	for i, s := range f[1:min(len(f), 9)] {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return cpuTimes{}, fmt.Errorf("read CPU times: %w", err)
		}
		t.total += n
		if i != 3 && i != 4 { // idle, and waiting for a disk
			t.busy += n
		}
	}
	return t, nil
}

// parseMemory reads /proc/meminfo, in bytes.
func parseMemory(text string) (total, available int64) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		n, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			continue
		}
		switch f[0] {
		case "MemTotal:":
			total = n << 10
		case "MemAvailable:":
			available = n << 10
		}
	}
	return total, available
}
