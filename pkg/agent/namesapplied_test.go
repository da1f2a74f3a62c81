package agent

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/hostview"
	"clocker.io/clocker/pkg/store"
)

// pluginSocket serves the plugin's socket of a state directory.
func pluginSocket(t *testing.T, dir string, h http.HandlerFunc) {
	t.Helper()
	path := filepath.Join(dir, hostview.Socket)
	assert.NilError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	l, err := net.Listen("unix", path)
	assert.NilError(t, err)
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Second}
	go s.Serve(l) //nolint:errcheck // it ends with the test
	t.Cleanup(func() { _ = s.Close() })
}

func TestNamesComeAfterWhereTheyLead(t *testing.T) {
	dir := t.TempDir()
	var asked atomic.Value
	released := make(chan struct{})
	pluginSocket(t, dir, func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.URL.Query().Get("revision"))
		<-released
		w.WriteHeader(http.StatusNoContent)
	})
	told := make(chan store.Change, 2)
	tell := newBehindPlugin(dir, slog.New(slog.DiscardHandler)).after(t.Context(), func(c store.Change) { told <- c })

	tell(store.Change{Revision: 3, Deletes: []string{"gone"}})
	assert.Equal(t, len(told), 1, "what goes must be told at once")
	<-told
	go tell(store.Change{Revision: 9, Puts: []store.Raw{{Key: "a", Revision: 7}, {Key: "b", Revision: 5}}})
	select {
	case <-told:
		t.Fatal("told before the plugin has it")
	case <-time.After(50 * time.Millisecond):
	}
	close(released)
	<-told
	assert.Equal(t, asked.Load(), "7")
}

func TestNamesDoNotWaitForAPluginThatIsAway(t *testing.T) {
	dir := t.TempDir()
	told := 0
	tell := newBehindPlugin(dir, slog.New(slog.DiscardHandler)).after(context.Background(), func(store.Change) { told++ })
	change := store.Change{Puts: []store.Raw{{Key: "a", Revision: 7}}}
	tell(change) // no socket
	assert.Equal(t, told, 1)

	var asked atomic.Int32
	pluginSocket(t, dir, func(_ http.ResponseWriter, r *http.Request) { asked.Add(1); <-r.Context().Done() })
	stuck := newBehindPlugin(dir, slog.New(slog.DiscardHandler))
	tell = stuck.after(context.Background(), func(store.Change) { told++ })
	tell(change)
	for range 5 {
		tell(change)
	}
	assert.Equal(t, told, 7)
	assert.Equal(t, asked.Load(), int32(1), "one that is stuck is waited for once in a while only")
}
