package formatter

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/go-units"

	"clocker.io/clocker/pkg/api"
)

const hostTable = "table {{.Name}}\t{{.Status}}\t{{.Address}}\t{{.Tasks}}\t{{.CPUs}}\t{{.CPU}}\t{{.Memory}}\t{{.MemoryUsed}}\t{{.Engine}}\t{{.Agent}}"

// Hosts renders `docker clocker host ls`.
func Hosts(o Options, hosts []api.Host) error {
	header := formatter.SubHeaderContext{
		"ID": "ID", "Name": "NAME", "Status": "STATUS", "Address": "ADDRESS", "Endpoint": "ENDPOINT", "Tasks": "TASKS",
		"CPUs": "CPUS", "Memory": "MEMORY", "Engine": "ENGINE", "Agent": "AGENT", "OS": "OS", "Architecture": "ARCHITECTURE",
		"Labels": "LABELS", "Added": "ADDED", "Since": "SINCE", "CPU": "CPU %", "MemoryUsed": "MEM %", "Containers": "CONTAINERS",
		"Load": "LOAD", "Disk": "DISK", "DiskFree": "DISK FREE", "Devices": "DEVICES", "Certificate": "CERTIFICATE", "Reason": "REASON",
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
	return size(r.h.Facts.MemoryBytes)
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

// CPU is the share of all processors that was in use over the last half
// minute: "12%".
func (r *hostRow) CPU() string {
	if r.h.Usage == nil {
		return "-"
	}
	return percent(r.h.Usage.CPU)
}

// MemoryUsed is the share of the memory that is in use.
func (r *hostRow) MemoryUsed() string {
	if r.h.Usage == nil || r.h.Facts == nil || r.h.Facts.MemoryBytes == 0 {
		return "-"
	}
	return percent(float64(r.h.Usage.MemoryUsed) / float64(r.h.Facts.MemoryBytes))
}

// Containers counts all containers that run on the engine, Clocker's or not.
func (r *hostRow) Containers() string {
	if r.h.Usage == nil {
		return "-"
	}
	return strconv.Itoa(r.h.Usage.Containers)
}

// Load is the load average of the last minute.
func (r *hostRow) Load() string {
	if r.h.Usage == nil {
		return "-"
	}
	return strconv.FormatFloat(r.h.Usage.LoadAverage, 'f', 2, 64)
}

// Disk is the size of the engine's disk, DiskFree what it has left.
func (r *hostRow) Disk() string {
	if r.h.Facts == nil || r.h.Facts.DiskBytes == 0 {
		return "-"
	}
	return size(r.h.Facts.DiskBytes)
}

// DiskFree is what the engine's disk has left.
func (r *hostRow) DiskFree() string {
	if r.h.Usage == nil || r.h.Usage.DiskFree == 0 {
		return "-"
	}
	return size(r.h.Usage.DiskFree)
}

// Devices are what the engine can give to containers: "2 gpu,4 ssd".
func (r *hostRow) Devices() string {
	if r.h.Facts == nil {
		return "-"
	}
	var out []string
	for _, d := range r.h.Facts.Devices {
		out = append(out, strconv.Itoa(len(d.IDs))+" "+d.Kind)
	}
	for _, g := range r.h.Facts.Generic {
		out = append(out, strconv.FormatInt(g.Value, 10)+" "+g.Kind)
	}
	return dash(strings.Join(out, ","))
}

// Certificate is the end of the host's own certificate.
func (r *hostRow) Certificate() string {
	if r.h.Facts == nil || r.h.Facts.CertificateUntil.IsZero() {
		return "-"
	}
	return r.h.Facts.CertificateUntil.Format(time.DateOnly)
}

// Reason says why the leader holds the host for other than healthy.
func (r *hostRow) Reason() string {
	if r.h.Health == nil {
		return "-"
	}
	return dash(r.o.cell(r.h.Health.Reason))
}

func percent(share float64) string { return strconv.Itoa(int(100*share+0.5)) + "%" }

func size(bytes int64) string {
	return units.CustomSize("%.4g%s", float64(bytes), 1024, []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"})
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
