package compose

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/source/document"
)

// resources reads what replicas may use and what is kept free for them. A
// service may say a limit in two places, as long as it says the same.
func (l *load) resources(s types.ServiceConfig, path string) model.Resources {
	r := model.Resources{CPUShares: s.CPUShares, CPUSet: s.CPUSet, SwapBytes: int64(s.MemSwapLimit)}
	var limits, reservations types.Resource
	if s.Deploy != nil && s.Deploy.Resources.Limits != nil {
		limits = *s.Deploy.Resources.Limits
	}
	if s.Deploy != nil && s.Deploy.Resources.Reservations != nil {
		reservations = *s.Deploy.Resources.Reservations
	}
	deploy := path + ".deploy.resources."
	r.Limit.NanoCPUs = l.once(path+".cpus", nano(float64(s.CPUS)), deploy+"limits.cpus", nano(float64(limits.NanoCPUs)))
	r.Limit.MemoryBytes = l.once(path+".mem_limit", int64(s.MemLimit), deploy+"limits.memory", int64(limits.MemoryBytes))
	r.Limit.PIDs = l.once(path+".pids_limit", s.PidsLimit, deploy+"limits.pids", limits.Pids)
	r.Reserve.NanoCPUs = nano(float64(reservations.NanoCPUs))
	r.Reserve.MemoryBytes = l.once(path+".mem_reservation", int64(s.MemReservation), deploy+"reservations.memory", int64(reservations.MemoryBytes))
	for _, d := range reservations.Devices {
		r.Devices = append(r.Devices, deviceRequest(d))
	}
	for _, d := range s.Gpus {
		q := deviceRequest(d)
		if !slices.Contains(q.Capabilities, "gpu") {
			q.Capabilities = append(q.Capabilities, "gpu")
		}
		r.Devices = append(r.Devices, q)
	}
	for _, d := range s.Devices {
		if strings.Contains(d.Source, "=") && !strings.HasPrefix(d.Source, "/") {
			// A device of the Container Device Interface.
			r.Devices = append(r.Devices, model.DeviceRequest{Driver: "cdi", IDs: []string{d.Source}})
			continue
		}
		p := model.DevicePath{Host: d.Source, Container: d.Target, Permissions: d.Permissions}
		if p.Permissions == "rwm" { // what the engine does without
			p.Permissions = ""
		}
		r.Paths = append(r.Paths, p)
	}
	for i, g := range reservations.GenericResources {
		if g.DiscreteResourceSpec == nil {
			l.refuse(fmt.Sprintf("%sreservations.generic_resources[%d]", deploy, i), "such as discrete_resource_spec: {kind: ssd, value: 1}", "the resource is missing")
			continue
		}
		r.Generic = append(r.Generic, model.GenericResource{Kind: g.DiscreteResourceSpec.Kind, Value: g.DiscreteResourceSpec.Value})
	}
	return r
}

// once is what one of two keys says, or both.
func (l *load) once(path string, value int64, otherPath string, other int64) int64 {
	if value != 0 && other != 0 && value != other {
		l.refuse(path, "keep one of them", "it differs from %s", otherPath)
	}
	if value != 0 {
		return value
	}
	return other
}

// nano turns CPUs into billionths. The loader keeps them as float32, whose
// error is cut off at a millionth.
func nano(cpus float64) int64 { return int64(math.Round(cpus*1e6)) * 1e3 }

func deviceRequest(d types.DeviceRequest) model.DeviceRequest {
	return model.DeviceRequest{
		Driver: d.Driver, Count: int(d.Count), IDs: slices.Clone(d.IDs), Capabilities: slices.Clone(d.Capabilities),
		Options: maps.Clone(d.Options),
	}
}

// placement reads where replicas may run, and how they are replaced.
func (l *load) placement(s types.ServiceConfig, path string, out *model.Service) {
	out.Placement.Platform = s.Platform
	if d := s.Deploy; d != nil {
		out.Placement.Constraints = slices.Clone(d.Placement.Constraints)
		for i, p := range d.Placement.Preferences {
			at := document.Index(path+".deploy.placement.preferences", i)
			if p.Spread == "" {
				if len(l.problems) == 0 { // what stood in its place is refused already otherwise
					l.refuse(at, "such as spread: node.labels.zone", "the preference says nothing")
				}
				continue
			}
			out.Placement.Spread = append(out.Placement.Spread, p.Spread)
		}
		out.Placement.MaxPerHost = int(min(d.Placement.MaxReplicas, math.MaxInt32))
		if u := d.UpdateConfig; u != nil {
			out.Update = &model.Update{StartFirst: u.Order == "start-first"}
			if u.Parallelism != nil {
				out.Update.Parallelism = int(min(*u.Parallelism, math.MaxInt32))
			}
			l.warn(fmt.Sprintf("%s: update_config is for replicas that move to another host; a deploy replaces those that change at once",
				l.at(path+".deploy.update_config")))
		}
	}
	l.serviceExtension(s, path+".x-clocker", out)
	if at, ok := l.index[path+".deploy.placement"]; ok && !placeless(out.Placement) {
		out.Placement.Position = at
	} else if at, ok := l.index[path+".x-clocker"]; ok && !placeless(out.Placement) {
		out.Placement.Position = at
	}
}

func placeless(p model.Placement) bool {
	return len(p.Strategies)+len(p.Affinity)+len(p.Constraints)+len(p.Spread)+p.MaxPerHost == 0 &&
		p.MinCores == 0 && p.MinMemory == 0 && p.Platform == ""
}
