package formatter

import (
	"github.com/docker/cli/cli/command/formatter"

	"clocker.io/clocker/pkg/fleet"
)

// Preflight renders `docker clocker host add --preflight`: a row for each thing
// that was looked at.
func Preflight(o Options, reports []fleet.Report) error {
	header := formatter.SubHeaderContext{
		"Host": "HOST", "Endpoint": "ENDPOINT", "Check": "CHECK", "Result": "RESULT", "Text": "FOUND",
	}
	var rows []checkRow
	for _, r := range reports {
		for _, c := range r.Checks {
			rows = append(rows, checkRow{o: o, r: r, c: c})
		}
	}
	return write(o, "table {{.Host}}\t{{.Check}}\t{{.Result}}\t{{.Text}}", "{{.Text}}", header, rows, func(r checkRow) formatter.SubContext { return &r })
}

type checkRow struct {
	formatter.HeaderContext
	o Options
	r fleet.Report
	c fleet.Check
}

func (r *checkRow) MarshalJSON() ([]byte, error) { return formatter.MarshalJSON(r) }

// Host is the machine's name, or its endpoint before it has one.
func (r *checkRow) Host() string {
	if r.r.Name == "" {
		return r.r.Endpoint
	}
	return r.r.Name
}
func (r *checkRow) Endpoint() string { return r.r.Endpoint }
func (r *checkRow) Check() string    { return r.c.Name }
func (r *checkRow) Result() string   { return string(r.c.Result) }
func (r *checkRow) Text() string     { return r.o.cell(r.c.Text) }
