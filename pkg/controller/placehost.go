package controller

import (
	"fmt"
	"time"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/placement"
	"clocker.io/clocker/pkg/record"
)

// placementHost is a host in placement's terms, without its replicas. Ports of
// every host that an application publishes are not taken for itself. The cache
// is locked.
func (c *cache) placementHost(id, app string) placement.Host {
	h, f := c.hosts[id].Value, c.facts[id]
	p := placement.Host{
		ID: id, Name: h.Name, Hostname: h.Name, Labels: h.Labels, EngineLabels: f.EngineLabels,
		Capacity:  model.Amounts{NanoCPUs: int64(f.CPUs) * 1e9, MemoryBytes: f.MemoryBytes},
		Strangers: f.Strangers, Volumes: f.Volumes, Affinity: h.Affinity, Usage: -1,
		Ports: map[string]string{}, Devices: map[string]int64{}, Generic: map[string]int64{},
	}
	for _, m := range c.controllers {
		if m.Value.Host == h.Name {
			p.Role = placement.RoleManager
		}
	}
	if arch := architecture(f.Architecture); arch != "" {
		p.Platform = "linux/" + arch
	}
	if u, known := c.usage[id]; known {
		p.Usage = u.CPU
	}
	for _, d := range f.Devices {
		p.Devices[d.Kind] += int64(len(d.IDs))
		if d.Driver != "" {
			p.Devices[d.Driver+"/"+d.Kind] += int64(len(d.IDs))
		}
	}
	for _, g := range f.Generic {
		p.Generic[g.Kind] += g.Value
	}
	p.Up, p.Cordoned, p.Why = c.takesWork(id)
	for _, q := range c.published {
		if q.App != app {
			key := placement.PortKey(model.Port{Protocol: q.Protocol, HostIP: q.HostIP, HostPort: q.HostPort})
			p.Ports[key] = q.App + "/" + q.Service + ", which is published on every host"
		}
	}
	own := c.ownPortsOn(id)
	for _, key := range f.Listening {
		if _, taken := p.Ports[key]; !taken && !own[key] {
			p.Ports[key] = "another program on the host"
		}
	}
	return p
}

// ownPortsOn are the ports that replicas on a host have, and those that every
// host answers on, as "tcp/80": what listens there is the
// fleet itself. The cache is locked.
func (c *cache) ownPortsOn(id string) map[string]bool {
	own := map[string]bool{}
	for task := range c.onHost[id] {
		for _, p := range c.assignments[task].Value.Container.Ports {
			own[fmt.Sprintf("%s/%d", p.Protocol, p.HostPort)] = true
		}
	}
	for _, q := range c.published {
		own[fmt.Sprintf("%s/%d", q.Protocol, q.HostPort)] = true
	}
	return own
}

// takesWork says whether a host may be given new work: its user wants it to,
// its agent answers, its networks are there, and the leader takes it for
// healthy. The cache is locked.
func (c *cache) takesWork(id string) (up, cordoned bool, why string) {
	_, alive := c.leases[id]
	_, joined := c.underlays[id]
	health := c.health[id].Value
	state := c.hosts[id].Value.State
	cordoned = state != record.HostActive
	switch {
	case !alive:
	case !joined:
		why = "its network plugin has not been up yet"
	case health.State != "" && health.State != record.HealthReady:
		why = "it is " + health.State + since(health)
	default:
		up = true
	}
	if up && cordoned {
		switch state {
		case record.HostDraining:
			why = "it is being drained"
		case record.HostRemoving:
			why = "it is being removed"
		default:
			why = "it is cordoned"
		}
	}
	return up, cordoned, why
}

func since(h record.HostHealth) string {
	text := ""
	if !h.Since.IsZero() {
		text = " since " + h.Since.UTC().Format(time.TimeOnly) + " UTC"
	}
	if h.Reason != "" {
		text += ": " + h.Reason
	}
	return text
}

// architecture is a machine's, as platforms have it.
func architecture(machine string) string {
	switch machine {
	case "x86_64":
		return "amd64"
	case "aarch64":
		return "arm64"
	case "armv7l":
		return "arm/v7"
	case "armv6l":
		return "arm/v6"
	case "i686", "i386":
		return "386"
	}
	return machine
}
