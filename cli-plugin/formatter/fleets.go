package formatter

import (
	"strings"

	"github.com/docker/cli/cli/command/formatter"
)

// Fleet is a line of `docker clocker fleet ls`.
type Fleet struct {
	Name        string
	Controllers []string
	// Current is the fleet that commands use when none is named.
	Current bool
	// Error says why its files cannot be used.
	Error string
}

const fleetTable = "table {{.Name}}\t{{.Controllers}}\t{{.Error}}"

// Fleets renders `docker clocker fleet ls`. The current fleet has an asterisk
// after its name, as contexts have in docker context ls.
func Fleets(o Options, fleets []Fleet) error {
	header := formatter.SubHeaderContext{"Name": "NAME", "Current": "CURRENT", "Controllers": "CONTROLLERS", "Error": "ERROR"}
	table := strings.HasPrefix(o.Format, formatter.TableFormatKey) || o.Format == ""
	return write(o, fleetTable, "{{.Name}}", header, fleets, func(f Fleet) formatter.SubContext {
		return &fleetRow{o: o, f: f, star: table && !o.Quiet}
	})
}

type fleetRow struct {
	formatter.HeaderContext
	o    Options
	f    Fleet
	star bool
}

func (r *fleetRow) MarshalJSON() ([]byte, error) { return formatter.MarshalJSON(r) }

// Name is the fleet's name.
func (r *fleetRow) Name() string {
	if r.star && r.f.Current {
		return r.f.Name + " *"
	}
	return r.f.Name
}

func (r *fleetRow) Current() bool       { return r.f.Current }
func (r *fleetRow) Controllers() string { return dash(strings.Join(r.f.Controllers, ", ")) }
func (r *fleetRow) Error() string       { return r.o.cell(r.f.Error) }
