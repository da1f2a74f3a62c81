package fleet

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/moby/moby/client"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/fleet/preflight"
)

// An engine enables no plugin that asks for a device that is not there.
func TestPluginDoesWithoutADeviceThatIsNotThere(t *testing.T) {
	for _, tun := range []bool{true, false} {
		var asked []string
		engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			assert.Check(t, err)
			_, action, _ := strings.Cut(r.URL.Path, "/plugins/"+PluginName+"/")
			asked = append(asked, strings.TrimSpace(action+" "+string(body)))
			w.WriteHeader(http.StatusNoContent)
		}))
		defer engine.Close()
		e, err := client.New(client.WithHost(strings.Replace(engine.URL, "http", "tcp", 1)), client.WithAPIVersion("1.44"))
		assert.NilError(t, err)
		var notes int
		a := &adoption{e: e, machine: &machine{facts: preflight.Facts{TUN: tun}}, report: func(Progress) { notes++ }}
		assert.NilError(t, a.enable(t.Context()))
		if tun {
			assert.DeepEqual(t, asked, []string{"enable"})
			assert.Equal(t, notes, 0)
		} else {
			assert.DeepEqual(t, asked, []string{`set ["tun.path=/dev/null"]`, "enable"})
			assert.Equal(t, notes, 1)
		}
	}
}
