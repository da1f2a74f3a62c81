package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"
	"github.com/docker/go-plugins-helpers/network"
	"gotest.tools/v3/assert"
)

var spaces = ipam.AddressSpacesResponse{LocalDefaultAddressSpace: "l", GlobalDefaultAddressSpace: "g"}

// methods is every call that an engine makes.
var methods = []string{
	"NetworkDriver.GetCapabilities", "NetworkDriver.GwAllocCheck", "NetworkDriver.AllocateNetwork", "NetworkDriver.FreeNetwork",
	"NetworkDriver.CreateNetwork", "NetworkDriver.DeleteNetwork", "NetworkDriver.CreateEndpoint", "NetworkDriver.EndpointOperInfo",
	"NetworkDriver.DeleteEndpoint", "NetworkDriver.Join", "NetworkDriver.Leave", "NetworkDriver.DiscoverNew", "NetworkDriver.DiscoverDelete",
	"NetworkDriver.ProgramExternalConnectivity", "NetworkDriver.RevokeExternalConnectivity",
	"IpamDriver.GetCapabilities", "IpamDriver.GetDefaultAddressSpaces", "IpamDriver.RequestPool", "IpamDriver.ReleasePool",
	"IpamDriver.RequestAddress", "IpamDriver.ReleaseAddress",
}

// serve starts a server and returns its socket.
func serve(t *testing.T, s *Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "plugins", "p.sock")
	l, err := Listen(path)
	assert.NilError(t, err)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		l.Close()
		assert.NilError(t, <-done)
		_, err := os.Stat(path)
		assert.ErrorIs(t, err, os.ErrNotExist)
	})
	return path
}

func post(t *testing.T, path, method, body string) (int, string) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	r, err := c.Post("http://p/"+method, "application/json", strings.NewReader(body))
	assert.NilError(t, err)
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	assert.NilError(t, err)
	return r.StatusCode, string(b)
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestActivate(t *testing.T) {
	path := serve(t, New(discard(), spaces))
	_, body := post(t, path, "Plugin.Activate", "")
	var got struct{ Implements []string }
	assert.NilError(t, json.Unmarshal([]byte(body), &got))
	assert.DeepEqual(t, got.Implements, []string{"NetworkDriver", "IpamDriver"})
	info, err := os.Stat(path)
	assert.NilError(t, err)
	assert.Equal(t, info.Mode().Perm(), os.FileMode(0o600))
}

// Whatever is sent, each method answers with JSON that the engine reads: an
// error is in both of the fields that its clients look at.
func TestEveryMethodAnswersWhateverIsSent(t *testing.T) {
	s := New(discard(), spaces)
	refusal := errors.New("no fleet")
	s.Use(Refuse(refusal, spaces))
	path := serve(t, s)
	for _, m := range methods {
		for _, body := range []string{"", "{}", `{"NetworkID":"x","EndpointID":"y"}`, "[", "null", `{"NetworkID":1}`, `{"x":"` + strings.Repeat("a", 2*maxBody) + `"}`} {
			code, answer := post(t, path, m, body)
			var reply struct{ Err, Error string }
			assert.NilError(t, json.Unmarshal([]byte(answer), &reply), "%s %.40q: %d %s", m, body, code, answer)
			assert.Equal(t, reply.Err, reply.Error)
			assert.Equal(t, code == http.StatusOK, reply.Err == "", "%s %.40q: %d %s", m, body, code, answer)
		}
	}
	code, _ := post(t, path, "NetworkDriver.NoSuchCall", "")
	assert.Equal(t, code, http.StatusNotFound)
}

func TestRefusingDriversLetGo(t *testing.T) {
	s := New(discard(), spaces)
	s.Use(Refuse(errors.New("no fleet"), spaces))
	path := serve(t, s)
	for _, m := range methods {
		code, answer := post(t, path, m, "{}")
		refused := map[string]bool{
			"NetworkDriver.GwAllocCheck": true, "NetworkDriver.AllocateNetwork": true, "NetworkDriver.CreateNetwork": true,
			"NetworkDriver.CreateEndpoint": true, "NetworkDriver.Join": true, "NetworkDriver.ProgramExternalConnectivity": true,
			"IpamDriver.RequestPool": true, "IpamDriver.RequestAddress": true,
		}[m]
		assert.Equal(t, code != http.StatusOK, refused, "%s: %s", m, answer)
	}
}

// What it is, the plugin says at once; what it is asked to do waits until it
// can.
func TestCallsWaitForDrivers(t *testing.T) {
	s := New(discard(), spaces)
	path := serve(t, s)
	_, body := post(t, path, "NetworkDriver.GetCapabilities", "")
	assert.Equal(t, strings.TrimSpace(body), `{"Scope":"local","ConnectivityScope":"global","GwAllocChecker":true}`)
	_, body = post(t, path, "IpamDriver.GetDefaultAddressSpaces", "")
	assert.Equal(t, strings.TrimSpace(body), `{"LocalDefaultAddressSpace":"l","GlobalDefaultAddressSpace":"g"}`)
	answered := make(chan string, 1)
	go func() {
		_, body := post(t, path, "NetworkDriver.CreateNetwork", "{}")
		answered <- body
	}()
	select {
	case body := <-answered:
		t.Fatalf("answered without drivers: %s", body)
	case <-time.After(100 * time.Millisecond):
	}
	s.Use(Refuse(errors.New("ready now"), spaces))
	assert.Check(t, bytes.Contains([]byte(<-answered), []byte("ready now")))
}

// panicking panics in one call.
type panicking struct{ refusingNetwork }

func (panicking) CreateNetwork(*network.CreateNetworkRequest) error { panic("oops") }

func TestPanicIsAnError(t *testing.T) {
	s := New(discard(), spaces)
	d := Refuse(errors.New("no fleet"), spaces)
	d.Network = panicking{}
	s.Use(d)
	path := serve(t, s)
	code, body := post(t, path, "NetworkDriver.CreateNetwork", "{}")
	assert.Equal(t, code, http.StatusInternalServerError)
	assert.Check(t, strings.Contains(body, "internal error: oops"), body)
	code, _ = post(t, path, "NetworkDriver.DeleteNetwork", "{}")
	assert.Equal(t, code, http.StatusOK)
}

func TestListenReplacesAStaleSocketOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.sock")
	l, err := Listen(path)
	assert.NilError(t, err)
	_, err = Listen(path)
	assert.ErrorContains(t, err, "another process is serving it")
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close() // as a kill leaves it
	l, err = Listen(path)
	assert.NilError(t, err)
	assert.NilError(t, l.Close())
	_, err = os.Stat(path)
	assert.ErrorIs(t, err, os.ErrNotExist)
}
