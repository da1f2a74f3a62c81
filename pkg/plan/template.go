package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
)

// Template is one replica that a release wants.
type Template struct {
	Service string
	Slot    int
	// Spec lacks decided host ports and link variables.
	Spec record.ContainerSpec
	// Hash identifies Spec: a replica that has it is kept.
	Hash string
	// Host pins to a host by name; empty means any.
	Host string
	// Entity is the service that the replica is of, Parent the plan id of the
	// entity above it; empty where there is none.
	Entity *model.Entity
	Parent string
}

// Templates lists every replica of a release, services in file order.
func Templates(fleet string, r *record.Release) []Template {
	var out []Template
	parents := map[*model.Entity]string{}
	r.Application.Walk(func(parent, e *model.Entity) {
		if parent != nil {
			parents[e] = parent.ID
		}
	})
	for _, e := range r.Application.Services() {
		for slot := 1; slot <= e.Service.Replicas; slot++ {
			t := Template{
				Service: e.ID, Slot: slot, Spec: containerSpec(fleet, r, e, slot), Host: pinnedHost(r.Application, e),
				Entity: e, Parent: parents[e],
			}
			t.Spec.Fence = e.Service.Fence()
			t.Hash = hashOf(e, t.Spec)
			// Not in the hash: they say nothing that the mounts do not.
			own, shared := e.Service.Data()
			t.Spec.Fenced, t.Spec.Shared = own || shared, shared && !own
			out = append(out, t)
		}
	}
	return out
}

// ContainerName is the name of a replica's container, which is also its name
// in DNS.
func ContainerName(app, service string, slot int) string {
	return fmt.Sprintf("%s-%s-%d", app, service, slot)
}

func containerSpec(fleet string, r *record.Release, e *model.Entity, slot int) record.ContainerSpec {
	s := e.Service
	spec := record.ContainerSpec{
		Name:            ContainerName(r.App, e.ID, slot),
		Image:           s.Image,
		Command:         s.Command,
		Entrypoint:      s.Entrypoint,
		Ports:           hostPorts(s.Ports),
		Mounts:          s.Mounts,
		Restart:         s.Restart,
		Health:          s.Healthcheck,
		StopGracePeriod: s.StopGracePeriod,
		Resources:       s.Resources,
		Platform:        s.Placement.Platform,
		Labels:          map[string]string{},
	}
	if r.Application.Dialect == "blueprint" {
		// The original names a container's host after the container
		// (spec/clocker.md §4.3); compose leaves it to the engine.
		spec.Hostname = spec.Name
	}
	for k, v := range s.Labels {
		spec.Labels[k] = v
	}
	spec.Labels[record.LabelFleet] = fleet
	spec.Labels[record.LabelApp] = r.App
	spec.Labels[record.LabelService] = e.ID
	spec.Labels[record.LabelSlot] = strconv.Itoa(slot)
	for _, v := range s.Env {
		text, _ := v.Value.Literal()
		spec.Env = append(spec.Env, v.Name+"="+text)
	}
	for _, n := range s.Networks {
		spec.Networks = append(spec.Networks, record.NetworkJoin{
			ID: r.Networks[n.Network], Aliases: n.Aliases,
			Address: n.Address, Address6: n.Address6, MAC: n.MAC, GatewayPriority: n.GatewayPriority,
		})
	}
	return spec
}

// hostPorts are the ports that are published where the replica runs. Those on
// every host are no matter of the container.
func hostPorts(all []model.Port) []model.Port {
	var out []model.Port
	for _, p := range all {
		if p.Mode != model.PortIngress {
			out = append(out, p)
		}
	}
	return out
}

// pinnedHost is the host that the nearest location names.
func pinnedHost(a *model.Application, e *model.Entity) string {
	switch {
	case e.Location != nil:
		return e.Location.Host
	case a.Location != nil:
		return a.Location.Host
	}
	return ""
}

// hashOf covers the links too: they decide variables that are not in the spec
// yet.
func hashOf(e *model.Entity, spec record.ContainerSpec) string {
	links := make([]string, len(e.Service.Links))
	for i, l := range e.Service.Links {
		links[i] = l.Alias + "=" + l.Target
	}
	ports := make([]model.Port, len(spec.Ports))
	for i, p := range spec.Ports {
		p.Position = model.Position{} // where it stands in the file is not what it is
		ports[i] = p
	}
	spec.Ports = ports
	b, err := json.Marshal(struct {
		Spec  record.ContainerSpec
		Links []string
	}{spec, links})
	if err != nil {
		panic("plan: container spec cannot be encoded: " + err.Error()) // only strings and numbers in it
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}
