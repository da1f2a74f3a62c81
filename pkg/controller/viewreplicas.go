package controller

import (
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
)

// replicaSeen is one replica of a service, whether one task stands for it or, as
// long as it moves or is replaced, two.
type replicaSeen struct {
	service    string
	slot       int
	runs, good bool
	// trouble is the first that a task of it has.
	trouble string
}

// replicasOf puts an application's tasks, which are in order, together by
// replica. What is on its way out counts for none.
func replicasOf(tasks []api.Task) []replicaSeen {
	var out []replicaSeen
	for _, t := range tasks {
		if t.Desired == "remove" {
			continue
		}
		if n := len(out); n == 0 || out[n-1].service != t.Service || out[n-1].slot != t.Slot {
			out = append(out, replicaSeen{service: t.Service, slot: t.Slot})
		}
		r := &out[len(out)-1]
		r.runs = r.runs || t.State == record.StateRunning
		r.good = r.good || t.State == record.StateComplete || t.State == record.StateRunning && t.Health != "unhealthy"
		if t.Error != "" && r.trouble == "" {
			r.trouble = t.Name + ": " + t.Error
		}
	}
	return out
}
