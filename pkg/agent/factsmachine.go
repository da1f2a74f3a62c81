package agent

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"clocker.io/clocker/pkg/engine"
	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/record"
)

// inventoried is an engine that tells what it has.
type inventoried interface {
	Inventory(ctx context.Context) (engine.Inventory, error)
}

// machineFacts finds out what the machine under the engine is like. In a
// container /proc is the machine's own where it counts (stat, meminfo, loadavg,
// driver), and the container's root is on the engine's disk.
type machineFacts struct {
	// engine may be nil: nothing is known of its inventory then.
	engine      inventoried
	certificate string // path; empty when there is none
	proc, disk  string
}

func newMachineFacts(e Engine, certificate string) machineFacts {
	inv, _ := e.(inventoried) // one that does not tell has nothing
	return machineFacts{engine: inv, certificate: certificate, proc: "/proc", disk: "/"}
}

// fill adds to what is known of the host. What cannot be found out is left out.
func (m machineFacts) fill(ctx context.Context, h *record.HostFacts, log *slog.Logger) {
	var s unix.Statfs_t
	if err := unix.Statfs(m.disk, &s); err == nil {
		h.DiskBytes = int64(s.Blocks) * s.Bsize //nolint:gosec // a disk has less than 8 EiB
	}
	h.CertificateUntil, h.CertificateBy = m.ownCertificate()
	gpus, err := nvidia(filepath.Join(m.proc, "driver/nvidia/gpus"))
	if err != nil {
		log.Warn("GPUs cannot be read", "error", err)
	}
	h.Devices = gpus
	if m.engine == nil {
		return
	}
	inv, err := m.engine.Inventory(ctx)
	if err != nil {
		log.Debug("engine's inventory cannot be read", "error", err)
		return
	}
	h.Devices = append(h.Devices, inv.Devices...)
	h.Generic, h.Runtimes, h.Volumes, h.Strangers = inv.Generic, inv.Runtimes, inv.Volumes, inv.Strangers
}

// ownCertificate tells until when the host's certificate holds, and who has
// signed it.
func (m machineFacts) ownCertificate() (until time.Time, by string) {
	if m.certificate == "" {
		return until, ""
	}
	text, err := os.ReadFile(m.certificate)
	if err != nil {
		return until, ""
	}
	c, err := ca.ParseCertificate(text)
	if err != nil {
		return until, ""
	}
	return c.NotAfter.UTC(), ca.SignedBy(c)
}

// nvidia reads the GPUs that NVIDIA's kernel driver has. The engine's own
// driver "nvidia" takes their UUIDs.
func nvidia(dir string) ([]record.Device, error) {
	es, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	byModel := map[string][]string{}
	for _, e := range es {
		text, err := os.ReadFile(filepath.Join(dir, e.Name(), "information"))
		if err != nil {
			return nil, err
		}
		model, id := parseGPU(string(text))
		if id != "" {
			byModel[model] = append(byModel[model], id)
		}
	}
	var out []record.Device
	for model, ids := range byModel {
		slices.Sort(ids)
		out = append(out, record.Device{Driver: "nvidia", Kind: "gpu", IDs: ids, Model: model})
	}
	slices.SortFunc(out, func(a, b record.Device) int { return strings.Compare(a.Model, b.Model) })
	return out, nil
}

// parseGPU reads model and UUID from the driver's description of a GPU.
func parseGPU(text string) (model, uuid string) {
	for line := range strings.Lines(text) {
		k, v, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(k) {
		case "Model":
			model = strings.TrimSpace(v)
		case "GPU UUID":
			uuid = strings.TrimSpace(v)
		}
	}
	return model, uuid
}
