package agent

import (
	"sort"

	"clocker.io/clocker/pkg/engine"
	"clocker.io/clocker/pkg/record"
)

// Why a container is kept after a restore.
const (
	keptUnknown = "the restored state does not know it"
	keptOther   = "the restored state wants another release of it"
	keptStopped = "the restored state wants it stopped"
)

// old says that an assignment is of a restored state, written before the
// restore: nothing that runs is disturbed for it.
func (v view) old(a assigned) bool { return v.Restored > 0 && a.Revision <= v.Restored }

// superseded says that a container nobody wants has been replaced since the
// restore: its application was deployed to this host again.
func (v view) superseded(c engine.Container) bool {
	for _, a := range v.Assigned {
		if !v.old(a) && (a.App == c.Labels[engine.LabelApp] || a.Container.Name == c.Name) {
			return true
		}
	}
	return false
}

// keptOf lists what is kept though a restored etcd wants it otherwise.
func keptOf(v view) []record.KeptTask {
	if v.Restored == 0 {
		return nil
	}
	var out []record.KeptTask
	for _, c := range v.Containers {
		why := ""
		a, known := v.Assigned[c.Labels[engine.LabelTask]]
		hash := c.Labels[engine.LabelHash]
		switch {
		case !known && !v.superseded(c):
			why = keptUnknown
		case !known || !v.old(a):
		case a.Phase == record.PhaseStop && c.Up():
			why = keptStopped
		case a.Phase == record.PhaseRun && a.Hash != "" && hash != "" && a.Hash != hash:
			why = keptOther
		}
		if why != "" {
			out = append(out, record.KeptTask{
				Task: c.Labels[engine.LabelTask], Container: c.ID, Name: c.Name,
				App: c.Labels[engine.LabelApp], Service: c.Labels[engine.LabelService], Why: why,
			})
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Container < out[j].Container })
	return out
}
