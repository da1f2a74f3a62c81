package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"gotest.tools/v3/assert"
	"pgregory.net/rapid"
)

func open(t testing.TB, path string) (*Journal, []string) {
	t.Helper()
	var got []string
	j, err := Open(path, func(p []byte) error {
		got = append(got, string(p))
		return nil
	})
	assert.NilError(t, err)
	t.Cleanup(func() { _ = j.Close() })
	return j, got
}

func put(t testing.TB, j *Journal, payloads ...string) {
	t.Helper()
	for _, p := range payloads {
		assert.NilError(t, j.Append([]byte(p)).Wait())
	}
}

func TestReplayAfterReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, got := open(t, path)
	assert.Equal(t, len(got), 0)
	put(t, j, "a", "", "c")
	assert.NilError(t, j.Close())
	assert.NilError(t, j.Close())
	assert.ErrorIs(t, j.Append([]byte("x")).Wait(), ErrClosed)

	j, got = open(t, path)
	assert.DeepEqual(t, got, []string{"a", "", "c"})
	put(t, j, "d")
	assert.NilError(t, j.Close())
	_, got = open(t, path)
	assert.DeepEqual(t, got, []string{"a", "", "c", "d"})
}

func TestOneProcessOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, _ := open(t, path)
	_, err := Open(path, func([]byte) error { return nil })
	assert.ErrorIs(t, err, ErrLocked)
	assert.NilError(t, j.Close())
	open(t, path)
}

// A crash while a batch is written leaves any prefix of it, or a part of the
// file that was never written.
func TestTornTailIsCutOff(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "j")
	j, _ := open(t, path)
	put(t, j, "first", "second")
	size, _ := j.Size()
	put(t, j, "third")
	assert.NilError(t, j.Close())
	whole, err := os.ReadFile(path)
	assert.NilError(t, err)

	torn := map[string][]byte{"zeros": append(slices.Clone(whole[:size]), make([]byte, 40)...)}
	for n := int(size); n < len(whole); n++ {
		torn[fmt.Sprintf("%d bytes", n)] = whole[:n]
	}
	for k := int(size); k < len(whole); k++ {
		b := slices.Clone(whole)
		b[k] ^= 0x40
		torn[fmt.Sprintf("byte %d flipped", k)] = b
	}
	for name, content := range torn {
		p := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
		assert.NilError(t, os.WriteFile(p, content, 0o600))
		j, got := open(t, p)
		assert.DeepEqual(t, got, []string{"first", "second"})
		put(t, j, "after")
		assert.NilError(t, j.Close())
		_, got = open(t, p)
		assert.DeepEqual(t, got, []string{"first", "second", "after"})
	}
}

// A batch may reach the disk out of order: its beginning missing, its end
// there. None of it was acknowledged, so that is a torn tail too.
func TestTailWrittenOutOfOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, _ := open(t, path)
	put(t, j, "first")
	size, _ := j.Size()
	assert.NilError(t, j.Append([]byte("second"), []byte("third")).Wait())
	assert.NilError(t, j.Close())
	b, err := os.ReadFile(path)
	assert.NilError(t, err)
	clear(b[size : size+headerSize])
	assert.NilError(t, os.WriteFile(path, b, 0o600))
	_, got := open(t, path)
	assert.DeepEqual(t, got, []string{"first"})
}

func TestDamageToCommittedRecordsIsReported(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "j")
	j, _ := open(t, path)
	put(t, j, "first", "second", "third")
	assert.NilError(t, j.Close())
	whole, err := os.ReadFile(path)
	assert.NilError(t, err)
	for k := range headerSize + len("first") {
		b := slices.Clone(whole)
		b[k] ^= 0x10
		p := filepath.Join(dir, fmt.Sprint(k))
		assert.NilError(t, os.WriteFile(p, b, 0o600))
		_, err := Open(p, func([]byte) error { return nil })
		assert.ErrorIs(t, err, ErrCorrupt, "byte %d", k)
	}
}

func TestDamageToACompactedFileIsReported(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, _ := open(t, path)
	assert.NilError(t, j.Compact(func(emit func([]byte)) {
		emit([]byte("a"))
		emit([]byte("b"))
	}))
	assert.NilError(t, j.Close())
	b, err := os.ReadFile(path)
	assert.NilError(t, err)
	assert.NilError(t, os.Truncate(path, int64(len(b)-1)))
	_, err = Open(path, func([]byte) error { return nil })
	assert.ErrorIs(t, err, ErrCorrupt)
}

func TestCompactReplacesRecords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, _ := open(t, path)
	for i := range 100 {
		put(t, j, fmt.Sprint(i))
	}
	pending := j.Append([]byte("pending"))
	assert.NilError(t, j.Compact(func(emit func([]byte)) {
		emit([]byte("state"))
		emit([]byte("pending"))
	}))
	assert.NilError(t, pending.Wait())
	_, grown := j.Size()
	assert.Equal(t, grown, int64(0))
	put(t, j, "more")
	assert.NilError(t, j.Close())
	_, got := open(t, path)
	assert.DeepEqual(t, got, []string{"state", "pending", "more"})
	names, err := filepath.Glob(path + ".new-*")
	assert.NilError(t, err)
	assert.Equal(t, len(names), 0)
}

func TestBrokenUntilCompacted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, _ := open(t, path)
	put(t, j, "a")
	// Writes to a file that is open for reading only fail as on a dead disk.
	ro, err := os.Open(path)
	assert.NilError(t, err)
	good := j.f
	j.f = ro
	assert.ErrorContains(t, j.Append([]byte("b")).Wait(), "write journal")
	assert.Assert(t, j.Broken() != nil)
	assert.Assert(t, j.Append([]byte("c")).Wait() != nil)
	assert.NilError(t, good.Close())

	assert.NilError(t, j.Compact(func(emit func([]byte)) { emit([]byte("a")) }))
	assert.NilError(t, j.Broken())
	put(t, j, "d")
	assert.NilError(t, j.Close())
	_, got := open(t, path)
	assert.DeepEqual(t, got, []string{"a", "d"})
}

func TestRecordTooLarge(t *testing.T) {
	j, _ := open(t, filepath.Join(t.TempDir(), "j"))
	assert.ErrorContains(t, j.Append(make([]byte, MaxRecord+1)).Wait(), "more than")
	put(t, j, "fine")
}

func TestReplayErrorStopsOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, _ := open(t, path)
	put(t, j, "a")
	assert.NilError(t, j.Close())
	stop := errors.New("stop")
	_, err := Open(path, func([]byte) error { return stop })
	assert.ErrorIs(t, err, stop)
}

// Every record acknowledged by concurrent writers, with compactions between,
// is read back, and each writer's in its order.
func TestConcurrentWriters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, _ := open(t, path)
	const writers, each = 32, 60
	var (
		mu  sync.Mutex
		all []string // what was appended, in order
		wg  sync.WaitGroup
	)
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				p := fmt.Sprintf("%d %d", w, i)
				mu.Lock()
				c := j.Append([]byte(p))
				all = append(all, p)
				if w == 0 && i%20 == 19 {
					if err := j.Compact(func(emit func([]byte)) {
						for _, r := range all {
							emit([]byte(r))
						}
					}); err != nil {
						t.Errorf("compact: %v", err)
					}
				}
				mu.Unlock()
				if err := c.Wait(); err != nil {
					t.Errorf("wait: %v", err)
				}
			}
		})
	}
	wg.Wait()
	assert.NilError(t, j.Close())
	_, got := open(t, path)
	assert.DeepEqual(t, got, all)
}

// Cutting the file anywhere after what was acknowledged never loses an
// acknowledged record and never invents one.
func TestCutAnywhere(t *testing.T) {
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(r *rapid.T) {
		n++
		path := filepath.Join(dir, fmt.Sprint(n))
		j, err := Open(path, func([]byte) error { return nil })
		if err != nil {
			r.Fatal(err)
		}
		var all []string
		for range rapid.IntRange(1, 12).Draw(r, "records") {
			p := rapid.StringN(0, 60, 200).Draw(r, "payload")
			if err := j.Append([]byte(p)).Wait(); err != nil {
				r.Fatal(err)
			}
			all = append(all, p)
		}
		acked, _ := j.Size()
		last := rapid.StringN(1, 60, 200).Draw(r, "last")
		if err := errors.Join(j.Append([]byte(last)).Wait(), j.Close()); err != nil {
			r.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			r.Fatal(err)
		}
		cut := rapid.IntRange(int(acked), len(b)-1).Draw(r, "cut")
		if err := os.Truncate(path, int64(cut)); err != nil {
			r.Fatal(err)
		}
		var got []string
		j, err = Open(path, func(p []byte) error { got = append(got, string(p)); return nil })
		if err != nil {
			r.Fatal(err)
		}
		if !slices.Equal(got, all) || j.Close() != nil {
			r.Fatalf("read %q, acknowledged %q", got, all)
		}
	})
}

func FuzzScan(f *testing.F) {
	f.Add([]byte{})
	f.Add(appendFrame(appendFrame(nil, []byte("a"), 0), []byte("b"), 19))
	f.Fuzz(func(t *testing.T, b []byte) {
		var again []byte
		good, err := scan(b, func(p []byte) error {
			again = append(again, p...)
			return nil
		})
		if good < 0 || good > int64(len(b)) || len(again) > len(b) {
			t.Fatalf("%d of %d bytes are good", good, len(b))
		}
		if err != nil {
			return
		}
		// What is good is good without the rest.
		if rest, err := scan(b[:good], func([]byte) error { return nil }); err != nil || rest != good {
			t.Fatalf("scan of the good part: %d of %d, %v", rest, good, err)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	payload := []byte(strings.Repeat("x", 80))
	for _, callers := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			j, _ := open(b, filepath.Join(b.TempDir(), "j"))
			var wg sync.WaitGroup
			next := make(chan struct{}, callers)
			for range callers {
				wg.Go(func() {
					for range next {
						if err := j.Append(payload).Wait(); err != nil {
							b.Error(err)
						}
					}
				})
			}
			b.ResetTimer()
			for range b.N {
				next <- struct{}{}
			}
			close(next)
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}
