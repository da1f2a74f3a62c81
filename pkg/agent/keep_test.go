package agent

import (
	"testing"
	"time"

	"clocker.io/clocker/pkg/engine"
	"clocker.io/clocker/pkg/record"

	"gotest.tools/v3/assert"
)

// After a restore, what was written before it starts and never disturbs; what
// was written after it counts as always.
func TestARestoredStateDisturbsNothing(t *testing.T) {
	const mark = 100
	running := func(task, app, hash string) engine.Container {
		return engine.Container{
			ID: "c-" + task, Name: app + "-web-1", State: engine.Running, StartedAt: time.Unix(1, 0),
			Labels: map[string]string{engine.LabelTask: task, engine.LabelApp: app, engine.LabelService: "web", engine.LabelHash: hash},
		}
	}
	assign := func(task, app, hash, phase string, revision int64) map[string]assigned {
		return map[string]assigned{task: {Assignment: record.Assignment{
			Task: task, App: app, Service: "web", Phase: phase, Hash: hash, Container: record.ContainerSpec{Name: app + "-web-1"},
		}, Revision: revision}}
	}
	for name, tc := range map[string]struct {
		assigned map[string]assigned
		want     []verb
		kept     string
	}{
		"unknown":                   {nil, nil, keptUnknown},
		"as it was":                 {assign("t", "shop", "h", record.PhaseRun, 50), nil, ""},
		"another release of before": {assign("t", "shop", "old", record.PhaseRun, 50), nil, keptOther},
		"another release since":     {assign("t", "shop", "new", record.PhaseRun, 150), []verb{doRemove}, ""},
		"stopped before":            {assign("t", "shop", "h", record.PhaseStop, 50), nil, keptStopped},
		"stopped since":             {assign("t", "shop", "h", record.PhaseStop, 150), []verb{doStop}, ""},
		"another task of before":    {assign("u", "shop", "h", record.PhaseRun, 50), nil, keptUnknown},
		"another task since":        {assign("u", "shop", "h", record.PhaseRun, 150), []verb{doRemove}, ""},
		"another application since": {assign("u", "blog", "h", record.PhaseStop, 150), nil, keptUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			v := view{
				Assigned: tc.assigned, Complete: true, Restored: mark, Now: time.Unix(2, 0),
				Containers: []engine.Container{running("t", "shop", "h")}, Memory: map[string]memory{"t": {}, "u": {}},
			}
			actions, _ := decide(v)
			var got []verb
			for _, a := range actions {
				if a.Verb != doForget {
					got = append(got, a.Verb)
				}
			}
			assert.DeepEqual(t, got, tc.want)
			kept := keptOf(v)
			if tc.kept == "" {
				assert.Equal(t, len(kept), 0)
			} else {
				assert.Equal(t, len(kept), 1)
				assert.Equal(t, kept[0].Why, tc.kept)
			}
			v.Restored = 0
			assert.Equal(t, len(keptOf(v)), 0, "settled")
		})
	}
}
