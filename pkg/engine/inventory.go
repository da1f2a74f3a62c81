package engine

import (
	"context"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
)

// Inventory is what an engine has to give, and what is on it.
type Inventory struct {
	// Devices are those that the engine found by CDI, Generic its
	// node-generic-resources, Runtimes its OCI runtimes, sorted.
	Devices  []record.Device
	Generic  []model.GenericResource
	Runtimes []string
	// Volumes are the names of volumes that are on this machine alone,
	// sorted: those of the driver local, without names that nobody gave.
	Volumes []string
	// Running counts all containers that run, Strangers those of them that are
	// not Clocker's.
	Running, Strangers int
}

// Inventory asks the engine what it has.
func (e *Engine) Inventory(ctx context.Context) (Inventory, error) {
	r, err := e.cli.Info(ctx, client.InfoOptions{})
	if err != nil {
		return Inventory{}, wrap("inspect engine", err)
	}
	inv := Inventory{Devices: cdiDevices(r.Info.DiscoveredDevices), Runtimes: slices.Sorted(maps.Keys(r.Info.Runtimes))}
	for _, g := range r.Info.GenericResources {
		switch {
		case g.DiscreteResourceSpec != nil:
			inv.Generic = addGeneric(inv.Generic, g.DiscreteResourceSpec.Kind, g.DiscreteResourceSpec.Value)
		case g.NamedResourceSpec != nil:
			inv.Generic = addGeneric(inv.Generic, g.NamedResourceSpec.Kind, 1)
		}
	}
	vs, err := e.cli.VolumeList(ctx, client.VolumeListOptions{Filters: make(client.Filters).Add("driver", "local")})
	if err != nil {
		return Inventory{}, wrap("list volumes", err)
	}
	for _, v := range vs.Items {
		if _, anonymous := v.Labels["com.docker.volume.anonymous"]; !anonymous && !looksAnonymous(v.Name) {
			inv.Volumes = append(inv.Volumes, v.Name)
		}
	}
	slices.Sort(inv.Volumes)
	cs, err := e.cli.ContainerList(ctx, client.ContainerListOptions{})
	if err != nil {
		return Inventory{}, wrap("list containers", err)
	}
	inv.Running = len(cs.Items)
	for _, c := range cs.Items {
		if c.Labels[record.LabelTask] == "" && c.Labels[record.LabelSystem] == "" {
			inv.Strangers++
		}
	}
	return inv, nil
}

// cdiDevices groups "vendor.com/class=name" by vendor and class; "all" stands
// for the others.
func cdiDevices(found []system.DeviceInfo) []record.Device {
	ids := map[string][]string{}
	for _, d := range found {
		kind, name, ok := strings.Cut(d.ID, "=")
		if ok && name != "all" && d.Source == "cdi" {
			ids[kind] = append(ids[kind], d.ID)
		}
	}
	var out []record.Device
	for _, kind := range slices.Sorted(maps.Keys(ids)) {
		slices.Sort(ids[kind])
		out = append(out, record.Device{Driver: "cdi", Kind: path.Base(kind), IDs: ids[kind], Model: kind})
	}
	return out
}

func addGeneric(all []model.GenericResource, kind string, n int64) []model.GenericResource {
	for i := range all {
		if all[i].Kind == kind {
			all[i].Value += n
			return all
		}
	}
	return append(all, model.GenericResource{Kind: kind, Value: n})
}

// looksAnonymous reports whether an engine made a name up: 64 hexadecimal
// digits. Engines before 20.10.22 do not label them.
func looksAnonymous(name string) bool {
	return len(name) == 64 && strings.Trim(name, "0123456789abcdef") == ""
}
