package policy

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

// inNamespace runs the rest of a test, on its own goroutine, in a network
// namespace of its own, which goes with the goroutine's thread.
func inNamespace(t testing.TB) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread must not be used again
	assert.NilError(t, unix.Unshare(unix.CLONE_NEWNET))
}

// nft runs nft(8) in the test's namespace: a child is started from this very
// thread.
func nftCommand(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command("nft", args...).CombinedOutput()
	assert.NilError(t, err, "nft %v: %s", args, out)
	return string(out)
}

var counters = regexp.MustCompile(`packets \d+ bytes \d+`)

// listed is the kernel's table as nft(8) lists it, with elements sorted, as
// their order in a hash table means nothing.
func listed(t testing.TB) string {
	t.Helper()
	text := counters.ReplaceAllString(nftCommand(t, "list", "table", "inet", TableName), "")
	return regexp.MustCompile(`(?s)elements = \{.*?\}`).ReplaceAllStringFunc(text, func(s string) string {
		parts := strings.Split(strings.TrimSuffix(strings.TrimPrefix(s, "elements = {"), "}"), ",")
		for i := range parts {
			parts[i] = strings.TrimSpace(parts[i])
		}
		for i := range parts {
			for j := i + 1; j < len(parts); j++ {
				if parts[j] < parts[i] {
					parts[i], parts[j] = parts[j], parts[i]
				}
			}
		}
		return "elements = { " + strings.Join(parts, ", ") + " }"
	})
}

func newTable(t testing.TB) *Table {
	return NewTable(slog.New(slog.NewTextHandler(testWriter{t}, nil)))
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// fillIn brings a table to a state step by step.
func fillIn(t testing.TB, table *Table, s State) {
	t.Helper()
	assert.NilError(t, table.SetFleet(s.Fleet))
	for _, n := range s.Networks {
		assert.NilError(t, table.PutNetwork(n))
	}
	for _, e := range s.Endpoints {
		assert.NilError(t, table.PutEndpoint(e))
	}
}

// What the kernel gets must be what nft(8) makes of the text.
func TestKernelTableIsTheText(t *testing.T) {
	inNamespace(t)
	golden, err := filepath.Abs("testdata/table.nft")
	assert.NilError(t, err)
	nftCommand(t, "-f", golden)
	want := listed(t)
	nftCommand(t, "delete", "table", "inet", TableName)

	table := newTable(t)
	fillIn(t, table, example())
	assert.NilError(t, table.Load())
	assert.Equal(t, listed(t), want)
	assert.NilError(t, table.check(true))
}

// Changes one by one must lead to the same table as loading it whole, and
// taking everything away to an empty one.
func TestChangesLeadToTheSameTable(t *testing.T) {
	inNamespace(t)
	whole := newTable(t)
	fillIn(t, whole, example())
	assert.NilError(t, whole.Load())
	want := listed(t)

	table := newTable(t)
	assert.NilError(t, table.Load())
	empty := listed(t)
	fillIn(t, table, example())
	assert.Equal(t, listed(t), want)
	assert.NilError(t, table.check(true))

	e := example().Endpoints[1]
	e.Ports = e.Ports[:1]
	assert.NilError(t, table.PutEndpoint(e))
	assert.NilError(t, table.check(true))
	assert.Assert(t, !strings.Contains(listed(t), "127.0.0.1 ."), "the port is withdrawn")

	for _, n := range example().Networks {
		assert.NilError(t, table.RemoveNetwork(n.ID))
	}
	assert.NilError(t, table.SetFleet(Fleet{}))
	assert.Equal(t, listed(t), empty)
}

// Whatever happens to the table in the kernel, the next change puts all of it
// in place.
func TestChangeAfterLoss(t *testing.T) {
	for name, harm := range map[string][]string{
		"ruleset flushed": {"flush", "ruleset"},
		"table deleted":   {"delete", "table", "inet", TableName},
		"set flushed":     {"flush", "set", "inet", TableName, setPins},
	} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			inNamespace(t)
			table := newTable(t)
			fillIn(t, table, example())
			assert.Check(t, table.Load())
			nftCommand(t, harm...)
			assert.Check(t, table.check(true) != nil, "%s: not noticed", name)
			assert.Check(t, table.RemoveEndpoint(example().Endpoints[0].Link))
			assert.Check(t, table.check(true), name)
		}()
		<-done
	}
}

// What something else did to the table is told, and mended when asked.
func TestCheck(t *testing.T) {
	inNamespace(t)
	table := newTable(t)
	fillIn(t, table, example())
	assert.NilError(t, table.Load())
	nftCommand(t, "add", "table", "ip", "filter")
	nftCommand(t, "add", "chain", "ip", "filter", "DOCKER-USER")
	nftCommand(t, "flush", "set", "inet", TableName, setPins)
	for _, fix := range []bool{false, true} {
		found, err := table.Check(fix)
		assert.NilError(t, err)
		assert.Equal(t, len(found), 2)
		assert.Equal(t, found[0].Fixed && found[1].Fixed, fix)
		assert.Equal(t, found[1].Subject, "chain DOCKER-USER")
	}
	found, err := table.Check(false)
	assert.NilError(t, err)
	assert.Equal(t, len(found), 0)
}

// A host full of endpoints must fit one transaction.
func TestManyEndpoints(t *testing.T) {
	inNamespace(t)
	table := newTable(t)
	fillIn(t, table, State{Fleet: example().Fleet, Networks: example().Networks})
	for i := range 4000 {
		assert.NilError(t, table.PutEndpoint(manyEndpoint(i)))
	}
	assert.NilError(t, table.Load())
	assert.NilError(t, table.check(true))
}

func manyEndpoint(i int) Endpoint {
	a := netip.AddrFrom4([4]byte{10, 208, byte(i >> 8), byte(i)})
	return Endpoint{
		Link: fmt.Sprintf("ck%013x", i), Network: "aaaa", Address: a,
		Ports: []Port{{Protocol: 6, HostPort: uint16(i + 1), Port: 80}},
	}
}

func BenchmarkEndpoint(b *testing.B) {
	for _, n := range []int{0, 1000} {
		b.Run(fmt.Sprint("among ", n), func(b *testing.B) {
			inNamespace(b)
			table := newTable(b)
			fillIn(b, table, State{Fleet: example().Fleet, Networks: example().Networks})
			for i := range n {
				e := manyEndpoint(i)
				table.endpoints[e.Link] = e
			}
			assert.NilError(b, table.Load())
			e := manyEndpoint(60000)
			for b.Loop() {
				assert.NilError(b, table.PutEndpoint(e))
				assert.NilError(b, table.RemoveEndpoint(e.Link))
			}
		})
	}
}
