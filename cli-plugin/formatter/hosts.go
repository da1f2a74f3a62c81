package formatter

import (
	"slices"
	"strconv"
	"strings"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/go-units"

	"clocker.io/clocker/pkg/api"
)

const hostTable = "table {{.Name}}\t{{.Status}}\t{{.Address}}\t{{.Tasks}}\t{{.CPUs}}\t{{.Memory}}\t{{.Engine}}\t{{.Agent}}"

// Hosts renders `docker clocker host ls`.
func Hosts(o Options, hosts []api.Host) error {
	header := formatter.SubHeaderContext{
		"ID": "ID", "Name": "NAME", "Status": "STATUS", "Address": "ADDRESS", "Endpoint": "ENDPOINT", "Tasks": "TASKS",
		"CPUs": "CPUS", "Memory": "MEMORY", "Engine": "ENGINE", "Agent": "AGENT", "OS": "OS", "Architecture": "ARCHITECTURE",
		"Labels": "LABELS", "Added": "ADDED", "Since": "SINCE",
	}
	return write(o, hostTable, "{{.Name}}", header, hosts, func(h api.Host) formatter.SubContext {
		return &hostRow{o: o, h: h}
	})
}

type hostRow struct {
	formatter.HeaderContext
	o Options
	h api.Host
}

func (r *hostRow) MarshalJSON() ([]byte, error) { return formatter.MarshalJSON(r) }

func (r *hostRow) ID() string       { return r.h.ID }
func (r *hostRow) Name() string     { return r.h.Name }
func (r *hostRow) Status() string   { return r.h.Status }
func (r *hostRow) Address() string  { return r.h.Address }
func (r *hostRow) Endpoint() string { return r.h.Endpoint }
func (r *hostRow) Tasks() int       { return r.h.Tasks }
func (r *hostRow) Added() string    { return ago(r.o.Now, r.h.AddedAt) }
func (r *hostRow) Since() string    { return ago(r.o.Now, r.h.Since) }

// CPUs is the number of processors, or a dash before the host has told.
func (r *hostRow) CPUs() string {
	if r.h.Facts == nil {
		return "-"
	}
	return strconv.Itoa(r.h.Facts.CPUs)
}

// Memory is the host's memory: "3.8GiB".
func (r *hostRow) Memory() string {
	if r.h.Facts == nil {
		return "-"
	}
	return units.CustomSize("%.4g%s", float64(r.h.Facts.MemoryBytes), 1024, []string{"B", "KiB", "MiB", "GiB", "TiB"})
}

// Engine is the version of the host's Docker Engine.
func (r *hostRow) Engine() string {
	if r.h.Facts == nil {
		return "-"
	}
	return dash(r.h.Facts.EngineVersion)
}

// Agent is the version of the host's agent.
func (r *hostRow) Agent() string {
	if r.h.Facts == nil {
		return "-"
	}
	return dash(r.h.Facts.AgentVersion)
}

// OS is the host's operating system.
func (r *hostRow) OS() string {
	if r.h.Facts == nil {
		return "-"
	}
	return dash(r.h.Facts.OS)
}

// Architecture is the host's processor architecture.
func (r *hostRow) Architecture() string {
	if r.h.Facts == nil {
		return "-"
	}
	return dash(r.h.Facts.Architecture)
}

// Labels are the host's labels: "a=b,c=d".
func (r *hostRow) Labels() string {
	var out []string
	for k, v := range r.h.Labels {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}
