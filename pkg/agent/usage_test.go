package agent

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/record"
)

func TestCPUIsMeasuredOverHalfAMinute(t *testing.T) {
	text := "cpu  100 10 50 800 40 0 5 15 7 7\ncpu0 1 1 1 1\n"
	c, err := parseCPU(text)
	assert.NilError(t, err)
	assert.DeepEqual(t, [2]uint64{c.busy, c.total}, [2]uint64{180, 1020})
	for _, bad := range []string{"", "cpu 1 2\n", "cpu0 1 2 3 4 5\n", "cpu 1 2 x 4\n"} {
		_, err := parseCPU(bad)
		assert.Assert(t, err != nil, "%q", bad)
	}
	at := time.Unix(1000, 0)
	var times []cpuTimes
	for i := range uint64(8) { // busy only in the last 10 seconds
		r := cpuTimes{at: at.Add(time.Duration(i) * 10 * time.Second), total: 1000 * i}
		if i == 7 {
			r.busy = 600
		}
		times = recent(append(times, r))
	}
	assert.Equal(t, len(times), 4)
	assert.Equal(t, share(times[0], times[3]), 0.2)
	assert.Equal(t, share(times[3], times[0]), 0.0)
}

func TestUsageIsWrittenOnlyWhenItHasMoved(t *testing.T) {
	was := record.HostUsage{CPU: 0.5, MemoryUsed: 50, DiskFree: 500, LoadAverage: 4, Containers: 3, At: time.Unix(1, 0)}
	of := sizes{memory: 100, disk: 1000}
	for name, tc := range map[string]struct {
		change func(u *record.HostUsage)
		want   bool
	}{
		"nothing":    {func(*record.HostUsage) {}, false},
		"a little":   {func(u *record.HostUsage) { u.CPU, u.MemoryUsed, u.DiskFree, u.LoadAverage = 0.54, 54, 540, 4.1 }, false},
		"CPU":        {func(u *record.HostUsage) { u.CPU = 0.44 }, true},
		"memory":     {func(u *record.HostUsage) { u.MemoryUsed = 56 }, true},
		"disk":       {func(u *record.HostUsage) { u.DiskFree = 440 }, true},
		"load":       {func(u *record.HostUsage) { u.LoadAverage = 5 }, true},
		"containers": {func(u *record.HostUsage) { u.Containers = 4 }, true},
	} {
		is := was
		tc.change(&is)
		assert.Equal(t, moved(was, is, of), tc.want, name)
	}
	assert.Assert(t, moved(record.HostUsage{}, was, of), "the first word is always said")
}

func TestMemoryIsRead(t *testing.T) {
	total, available := parseMemory("MemTotal:       2048 kB\nMemFree: 1 kB\nMemAvailable:   1024 kB\nHugePages_Total: 0\n")
	assert.DeepEqual(t, [2]int64{total, available}, [2]int64{2 << 20, 1 << 20})
}

func TestGPUsOfTheKernelDriverAreListedByModel(t *testing.T) {
	dir := t.TempDir()
	for bus, text := range map[string]string{
		"0000:01:00.0": "Model: \t\t NVIDIA A100\nIRQ:   1\nGPU UUID: \t GPU-b\n",
		"0000:02:00.0": "Model: NVIDIA A100\nGPU UUID: GPU-a\n",
		"0000:03:00.0": "Model: NVIDIA T4\nGPU UUID: GPU-c\n",
	} {
		assert.NilError(t, os.MkdirAll(filepath.Join(dir, bus), 0o755))
		assert.NilError(t, os.WriteFile(filepath.Join(dir, bus, "information"), []byte(text), 0o600))
	}
	got, err := nvidia(dir)
	assert.NilError(t, err)
	assert.DeepEqual(t, got, []record.Device{
		{Driver: "nvidia", Kind: "gpu", IDs: []string{"GPU-a", "GPU-b"}, Model: "NVIDIA A100"},
		{Driver: "nvidia", Kind: "gpu", IDs: []string{"GPU-c"}, Model: "NVIDIA T4"},
	})
	none, err := nvidia(filepath.Join(dir, "nothing"))
	assert.NilError(t, err)
	assert.Equal(t, len(none), 0)
}
