package compose_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"clocker.io/clocker/pkg/compose"
	"gotest.tools/v3/assert"
)

func TestLostHosts(t *testing.T) {
	const shared, own = "{type: bind, source: /nfs, target: /data, x-clocker: {shared: true}}", "/own:/own"
	for _, x := range []struct {
		volume, says string
		fence        time.Duration
		want         string // of the error, or of the warnings
	}{
		{shared, "{on-host-lost: replace}", 15 * time.Second, ""},
		{shared, "{on-host-lost: replace, fence: 1m}", time.Minute, ""},
		{shared, "{on-host-lost: wait}", 0, ""},
		{own, "{on-host-lost: replace}", 15 * time.Second, "compose.yaml:6:17: when its host is lost the service starts elsewhere without its data: /own is of each host"},
		{shared, "{fence: 15s}", 0, "write on-host-lost: replace beside it"},
		{shared, "{on-host-lost: replace, fence: 4s}", 0, "a fence of 4s is out of bounds (5s to 10m0s)"},
		{shared, "{on-host-lost: replace, fence: soon}", 0, `"soon" is no duration`},
		{shared, "{on-host-lost: never}", 0, `compose.yaml:6:17: services.a.x-clocker.on-host-lost: "never" says nothing about a lost host (wait or replace)`},
		{shared, "{on-host-lost: [wait]}", 0, "expected a word"},
		{shared, "{on-host-losst: wait}", 0, `did you mean "on-host-lost"`},
		{"/own:/own:ro", "{on-host-lost: wait}", 0, "the service writes to no data that outlives it"},
		{"/own:/own:ro", "{on-host-lost: replace}", 0, ""},
		{"/own:/own:ro", "{on-host-lost: replace, fence: 15s}", 0, "what writes to nothing is replaced without one"},
	} {
		file := fmt.Sprintf("name: app\nservices:\n  a:\n    image: z\n    volumes: [%q]\n    x-clocker: %s\n", x.volume, x.says)
		file = strings.ReplaceAll(strings.ReplaceAll(file, `"{`, "{"), `}"`, "}")
		app, warnings, err := compose.Load(t.Context(), []compose.File{{Name: "compose.yaml", Content: []byte(file)}}, compose.Options{Dir: t.TempDir()})
		text := strings.Join(warnings, "\n")
		if err != nil {
			text = err.Error()
		} else {
			assert.Equal(t, app.Entity("a").Service.Fence(), x.fence, "%s", x.says)
		}
		if x.want == "" {
			assert.Equal(t, text, "", x.says)
		}
		assert.Assert(t, strings.Contains(text, x.want), "%s: %s", x.says, text)
	}
}
