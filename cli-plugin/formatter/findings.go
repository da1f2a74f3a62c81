package formatter

import (
	"github.com/docker/cli/cli/command/formatter"

	"clocker.io/clocker/pkg/api"
)

const findingTable = "table {{.Host}}\t{{.Part}}\t{{.Subject}}\t{{.State}}\t{{.Finding}}"

// Findings renders `docker clocker doctor`.
func Findings(o Options, findings []api.Finding) error {
	header := formatter.SubHeaderContext{
		"Host": "HOST", "Part": "PART", "Subject": "SUBJECT", "State": "STATE", "Finding": "FINDING", "Text": "TEXT", "Hint": "HINT",
		"Fixed": "FIXED",
	}
	return write(o, findingTable, "{{.Host}}", header, findings, func(f api.Finding) formatter.SubContext {
		return &findingRow{o: o, f: f}
	})
}

type findingRow struct {
	formatter.HeaderContext
	o Options
	f api.Finding
}

func (r *findingRow) MarshalJSON() ([]byte, error) { return formatter.MarshalJSON(r) }

func (r *findingRow) Host() string    { return dash(r.f.Host) }
func (r *findingRow) Part() string    { return r.f.Part }
func (r *findingRow) Subject() string { return r.o.cell(r.f.Subject) }
func (r *findingRow) Text() string    { return r.f.Text }
func (r *findingRow) Hint() string    { return r.f.Hint }
func (r *findingRow) Fixed() bool     { return r.f.Fixed }

// State is "mended", "open" (doctor --fix mends it) or "by hand".
func (r *findingRow) State() string {
	switch {
	case r.f.Fixed:
		return "mended"
	case r.f.Hint != "":
		return "by hand"
	}
	return "open"
}

// Finding is what was found and what to do about it. It is never cut: it is
// what the user came for.
func (r *findingRow) Finding() string {
	if r.f.Hint == "" || r.f.Fixed {
		return r.f.Text
	}
	return r.f.Text + ": " + r.f.Hint
}
