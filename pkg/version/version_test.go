package version

import (
	"runtime/debug"
	"testing"

	"gotest.tools/v3/assert"
)

func TestBuildInfoFillsOnlyWhatTheLinkerLeftOpen(t *testing.T) {
	b := &debug.BuildInfo{
		Main: debug.Module{Version: "v0.3.0"},
		Settings: []debug.BuildSetting{
			{Key: "vcs.revision", Value: "0123456789abcdef0123"},
			{Key: "vcs.time", Value: "2026-01-02T03:04:05Z"},
			{Key: "vcs.modified", Value: "true"},
		},
	}
	for name, tc := range map[string]struct{ in, want Info }{
		"nothing set": {Info{}, Info{Version: "v0.3.0", Commit: "0123456789ab-dirty", Date: "2026-01-02T03:04:05Z"}},
		"all set":     {Info{Version: "1", Commit: "c", Date: "d"}, Info{Version: "1", Commit: "c", Date: "d"}},
	} {
		t.Run(name, func(t *testing.T) {
			assert.DeepEqual(t, tc.in.withBuild(b), tc.want)
		})
	}
}

func TestNothingIsLeftEmpty(t *testing.T) {
	got := Info{}.withBuild(&debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}).complete()
	assert.DeepEqual(t, got, Info{Version: "dev", Commit: "unknown", Date: "unknown"})
}
