package compose_test

import (
	"strings"
	"testing"

	"clocker.io/clocker/pkg/compose"
	"gotest.tools/v3/assert"
)

func TestSharedData(t *testing.T) {
	dir := t.TempDir()
	load := func(content string) (string, []bool) {
		app, _, err := compose.Load(t.Context(), []compose.File{{Name: "compose.yaml", Content: []byte(content)}}, compose.Options{Dir: dir})
		if err != nil {
			return err.Error(), nil
		}
		var shared []bool
		for _, m := range app.Entity("a").Service.Mounts {
			shared = append(shared, m.Shared)
		}
		return "", shared
	}
	text, shared := load(`
name: app
services:
  a:
    image: z
    volumes:
      - /own:/own
      - {type: bind, source: /nfs, target: /data, x-clocker: {shared: true}}
      - {type: bind, source: /b, target: /b, x-clocker: {shared: false}}
`)
	assert.Equal(t, text, "")
	assert.DeepEqual(t, shared, []bool{false, true, false})
	text, _ = load(`
name: app
services:
  a:
    image: z
    volumes:
      - {type: bind, source: /nfs, target: /data, x-clocker: {shard: true}}
      - {type: bind, source: /b, target: /b, x-clocker: {shared: perhaps}}
`)
	for _, want := range []string{`compose.yaml:7:63: services.a.volumes[0].x-clocker.shard: unknown key "shard"`, `expected true or false, found "perhaps"`} {
		assert.Assert(t, strings.Contains(text, want), "%s\n%s", want, text)
	}
	text, _ = load(`
name: app
services: {a: {image: z, volumes: [{type: bind, source: /b, target: /b, read_only: true, x-clocker: {shared: true}}]}}
`)
	assert.Assert(t, strings.Contains(text, "what is only read need not be shared"), text)
}
