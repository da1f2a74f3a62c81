package formatter

import (
	"github.com/docker/cli/cli/command/formatter"

	"clocker.io/clocker/pkg/api"
)

const moveTable = "table {{.Name}}\t{{.From}}\t{{.To}}\t{{.How}}\t{{.Why}}"

// Moves renders what `docker clocker host drain --plan` and `docker clocker
// rebalance --plan` would do.
func Moves(o Options, moves []api.PlannedMove) error {
	header := formatter.SubHeaderContext{
		"Name": "REPLICA", "From": "FROM", "To": "TO", "How": "HOW", "Why": "WHY", "App": "APPLICATION", "Service": "SERVICE", "Task": "TASK",
	}
	return write(o, moveTable, "{{.Name}}", header, moves, func(m api.PlannedMove) formatter.SubContext {
		return &moveRow{m: m, o: o}
	})
}

type moveRow struct {
	formatter.HeaderContext
	m api.PlannedMove
	o Options
}

func (r *moveRow) MarshalJSON() ([]byte, error) { return formatter.MarshalJSON(r) }

func (r *moveRow) Name() string    { return r.m.Name }
func (r *moveRow) App() string     { return r.m.App }
func (r *moveRow) Service() string { return r.m.Service }
func (r *moveRow) Task() string    { return r.m.Task }
func (r *moveRow) From() string    { return r.m.From }
func (r *moveRow) To() string      { return dash(r.m.To) }

// How is which of the two containers comes first, or that it cannot move.
func (r *moveRow) How() string {
	switch {
	case r.m.Blocked != "":
		return "blocked"
	case r.m.StopFirst:
		return "stop first"
	}
	return "start first"
}

// Why is what blocks the move, else why it goes there.
func (r *moveRow) Why() string {
	if r.m.Blocked != "" {
		return r.o.cell(r.m.Blocked)
	}
	return r.o.cell(r.m.Reason)
}
