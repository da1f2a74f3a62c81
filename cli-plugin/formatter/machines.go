package formatter

import (
	"slices"
	"time"

	"github.com/docker/cli/cli/command/formatter"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
)

const machineTable = "table {{.ID}}\t{{.Provider}}\t{{.Machine}}\t{{.State}}\t{{.Since}}\t{{.Host}}\t{{.Text}}"

// Machines renders `docker clocker provider machines`.
func Machines(o Options, machines []api.Machine) error {
	header := formatter.SubHeaderContext{
		"ID": "ID", "Provider": "PROVIDER", "Machine": "MACHINE", "State": "STATE", "Since": "SINCE", "Host": "HOST",
		"Text": "WHY", "For": "FOR", "Attempts": "ATTEMPTS", "CreatedAt": "CREATED",
	}
	return write(o, machineTable, "{{.ID}}", header, machines, func(m api.Machine) formatter.SubContext {
		return &machineRow{m: m, o: o}
	})
}

type machineRow struct {
	formatter.HeaderContext
	m api.Machine
	o Options
}

func (r *machineRow) MarshalJSON() ([]byte, error) { return formatter.MarshalJSON(r) }

func (r *machineRow) ID() string       { return r.m.ID }
func (r *machineRow) Provider() string { return r.m.Provider }
func (r *machineRow) State() string    { return r.m.State }
func (r *machineRow) Since() string    { return ago(r.o.Now, r.m.Since) }
func (r *machineRow) Host() string     { return dash(r.m.HostName) }
func (r *machineRow) For() string      { return dash(r.m.For) }

// Machine is the provider's own name for it.
func (r *machineRow) Machine() string {
	if r.m.Handle != "" {
		return r.o.cell(r.m.Handle)
	}
	return dash(r.m.Name)
}

// Text is what went wrong last, else why it goes, else why it was asked for.
func (r *machineRow) Text() string {
	for _, t := range []string{r.m.Error, r.m.Leave, r.m.Why} {
		if t != "" {
			return r.o.cell(t)
		}
	}
	return "-"
}

func (r *machineRow) CreatedAt() string { return r.m.CreatedAt.UTC().Format(time.RFC3339) }

// sortedPairs are KEY=VALUE texts, sorted.
func sortedPairs(labels map[string]string) []string {
	var out []string
	for k, v := range labels {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return out
}

// underWay are the machines that are neither hosts nor set aside.
func underWay(machines []api.Machine) []api.Machine {
	return slices.DeleteFunc(slices.Clone(machines), func(m api.Machine) bool { return m.State == record.MachineHost })
}
