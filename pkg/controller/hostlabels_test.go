package controller

import (
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
)

func TestChangesOfLabelsAreChecked(t *testing.T) {
	for name, tc := range map[string]struct {
		change api.LabelChange
		want   []string
	}{
		"set":       {api.LabelChange{Set: map[string]string{"a": "b c", "d.e/f": ""}}, nil},
		"removed":   {api.LabelChange{Remove: []string{"a"}}, nil},
		"nothing":   {api.LabelChange{}, []string{"no label is changed"}},
		"bad keys":  {api.LabelChange{Set: map[string]string{"": "x", "a b": "x"}, Remove: []string{"c=d"}}, []string{`""`, `"a b"`, `"c=d"`}},
		"bad value": {api.LabelChange{Set: map[string]string{"a": "x\ny"}}, []string{"label a"}},
		"both":      {api.LabelChange{Set: map[string]string{"a": "x"}, Remove: []string{"a"}}, []string{"both set and removed"}},
	} {
		got := checkLabels(tc.change)
		assert.Equal(t, len(got), len(tc.want), "%s: %q", name, got)
		for i := range tc.want {
			assert.Assert(t, strings.Contains(got[i], tc.want[i]), "%s: %q", name, got[i])
		}
	}
}

func TestStatusOfAHostTellsItsHealth(t *testing.T) {
	for name, tc := range map[string]struct{ status, state, health, want string }{
		"healthy":              {"ready", record.HostActive, "", "ready"},
		"draining":             {"ready", record.HostDraining, record.HealthReady, "draining"},
		"gone for a moment":    {"down", record.HostActive, record.HealthSuspect, "suspect"},
		"gone":                 {"down", record.HostActive, record.HealthLost, "lost"},
		"back, not judged yet": {"ready", record.HostActive, record.HealthLost, "ready"},
		"flapping":             {"ready", record.HostActive, record.HealthQuarantined, "quarantined"},
		"flapping, down":       {"down", record.HostActive, record.HealthQuarantined, "quarantined"},
		"going":                {"removing", record.HostRemoving, record.HealthLost, "removing"},
	} {
		c := &Controller{cache: newCache("demo")}
		if tc.health != "" {
			c.cache.mu.Lock()
			item := c.cache.health["1"]
			item.Value = record.HostHealth{State: tc.health}
			c.cache.health["1"] = item
			c.cache.mu.Unlock()
		}
		h := api.Host{Host: record.Host{ID: "1", State: tc.state}, Status: tc.status}
		c.tellHealth(&h)
		assert.Equal(t, h.Status, tc.want, name)
	}
}
