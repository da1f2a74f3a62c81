package driver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/docker/go-plugins-helpers/ipam"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/ipam/registry"
)

// engine posts to a plugin's socket as an engine does.
type engine struct {
	t      testing.TB
	client *http.Client
}

func serve(t testing.TB, h *ipam.Handler) *engine {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	assert.NilError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() { _ = h.Serve(l) }()
	return &engine{t, &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}}
}

func (e *engine) post(method, body string) (int, map[string]any) {
	e.t.Helper()
	r, err := e.client.Post("http://plugin/"+method, "application/json", bytes.NewBufferString(body))
	assert.NilError(e.t, err)
	defer func() { _ = r.Body.Close() }()
	b, err := io.ReadAll(r.Body)
	assert.NilError(e.t, err)
	var m map[string]any
	if json.Unmarshal(b, &m) != nil {
		m = map[string]any{"text": string(b)}
	}
	return r.StatusCode, m
}

// The calls of `docker network create`, `run`, `stop` and `network rm`, in
// the engine's own form.
func TestWire(t *testing.T) {
	f := newFleet(t)
	h := f.host("a")
	e := serve(t, ipam.NewHandler(h))
	code, m := e.post("IpamDriver.GetCapabilities", "")
	assert.Equal(t, code, 200)
	assert.DeepEqual(t, m, map[string]any{"RequiresMACAddress": false})
	_, m = e.post("IpamDriver.GetDefaultAddressSpaces", "")
	assert.Equal(t, m["LocalDefaultAddressSpace"], LocalSpace)
	assert.Equal(t, m["GlobalDefaultAddressSpace"], GlobalSpace)

	_, m = e.post("IpamDriver.RequestPool", `{"AddressSpace":"clocker-local","Pool":"10.1.0.0/24","SubPool":"","Options":{},"V6":false}`)
	pool, _ := m["PoolID"].(string)
	assert.Equal(t, m["Pool"], "10.1.0.0/24")
	_, m = e.post("IpamDriver.RequestAddress", fmt.Sprintf(`{"PoolID":%q,"Address":"","Options":{"RequestAddressType":"com.docker.network.gateway"}}`, pool))
	assert.Equal(t, m["Address"], "10.1.0.1/24")
	_, m = e.post("IpamDriver.RequestAddress", fmt.Sprintf(`{"PoolID":%q,"Address":"10.1.0.7","Options":null}`, pool))
	assert.Equal(t, m["Address"], "10.1.0.7/32", "%v", m)
	code, m = e.post("IpamDriver.RequestAddress", fmt.Sprintf(`{"PoolID":%q,"Address":"10.9.0.7","Options":null}`, pool))
	assert.Equal(t, code, 500)
	assert.Equal(t, m["Err"], "request address: find block of 10.9.0.7: not in the subnet 10.1.0.0/24")
	for _, a := range []string{"10.1.0.7", "10.1.0.1"} {
		code, _ = e.post("IpamDriver.ReleaseAddress", fmt.Sprintf(`{"PoolID":%q,"Address":%q}`, pool, a))
		assert.Equal(t, code, 200)
	}
	code, _ = e.post("IpamDriver.ReleasePool", fmt.Sprintf(`{"PoolID":%q}`, pool))
	assert.Equal(t, code, 200)
	ns, err := registry.List(t.Context(), f.st)
	assert.NilError(t, err)
	assert.Equal(t, len(ns), 0)
}

// Requests that no engine sends are answered with an error, never with a
// crash.
func FuzzRequests(f *testing.F) {
	f.Add("clocker-local/net0/10.1.0.0/24", "10.1.0.9", "com.docker.network.gateway", "10.1.0.0/24")
	f.Add("a/b/c", "", "", "")
	f.Add("x/net0/::/0", "::ffff:10.1.0.9", "", "fd00::/8")
	f.Add("x/net0/0.0.0.0/0", "10.1.0.9%eth0", "", "0.0.0.0/24")
	fl := newFleet(f)
	n := fl.subnet("10.1.0.0/24")
	h := fl.host("a")
	h.join(n)
	f.Fuzz(func(t *testing.T, pool, address, kind, subnet string) {
		options := map[string]string{optType: kind}
		_, _ = h.RequestAddress(&ipam.RequestAddressRequest{PoolID: pool, Address: address, Options: options})
		_ = h.ReleaseAddress(&ipam.ReleaseAddressRequest{PoolID: pool, Address: address})
		if r, err := h.RequestPool(&ipam.RequestPoolRequest{Pool: subnet, SubPool: address}); err == nil {
			if err := h.ReleasePool(&ipam.ReleasePoolRequest{PoolID: r.PoolID}); err != nil {
				t.Fatal(err)
			}
		}
		_ = h.ReleasePool(&ipam.ReleasePoolRequest{PoolID: pool})
	})
}
