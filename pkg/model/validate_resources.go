package model

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// What engines accept at least: less is refused when a container is made.
const (
	minMemory    = 6 << 20
	minNanoCPUs  = 10_000_000
	minCPUShares = 2
	maxCPUShares = 262_144
)

var (
	cpuSet      = regexp.MustCompile(`^[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*$`)
	permissions = regexp.MustCompile(`^[rwm]{1,3}$`)
	kind        = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)
)

// resourcePaths says where a blueprint writes what compose writes elsewhere.
var resourcePaths = map[string]string{
	".deploy.resources.limits.memory": ".docker.memory", ".cpu_shares": ".docker.cpuShares", ".cpuset": ".docker.cpuset",
	".deploy.placement": ".provisioning.properties",
}

// resources checks what a service asks of its hosts.
func (c *checker) resources(e *Entity) {
	r := e.Service.Resources
	at := func(path, remedy, format string, args ...any) {
		if own := resourcePaths[path]; own != "" && c.app.Dialect != "compose" {
			path = own
		}
		c.at(e, Position{}, path, remedy, format, args...)
	}
	c.amounts(r, at)
	c.swap(r, at)
	if n := r.CPUShares; n != 0 && (n < minCPUShares || n > maxCPUShares) {
		at(".cpu_shares", "the engine's default is 1024", "%d CPU shares are not between %d and %d", n, minCPUShares, maxCPUShares)
	}
	if s := r.CPUSet; s != "" && !cpuSet.MatchString(s) {
		at(".cpuset", "such as 0-2,4", "%q names no CPUs", s)
	}
	c.devices(r, at)
	seen := map[string]bool{}
	for i, g := range r.Generic {
		where := fmt.Sprintf(".deploy.resources.reservations.generic_resources[%d]", i)
		switch {
		case !kind.MatchString(g.Kind):
			at(where, "such as kind: ssd", "%q is no kind of a resource", g.Kind)
		case g.Value <= 0:
			at(where, "1 or more", "%d of %s cannot be kept free", g.Value, g.Kind)
		case seen[g.Kind]:
			at(where, "keep one of them", "resource %s is reserved twice", g.Kind)
		}
		seen[g.Kind] = true
	}
}

type atPath func(path, remedy, format string, args ...any)

func (c *checker) amounts(r Resources, at atPath) {
	const limits, reservations = ".deploy.resources.limits.", ".deploy.resources.reservations."
	for _, a := range []struct {
		path  string
		value int64
		least int64
		unit  string
	}{
		{limits + "cpus", r.Limit.NanoCPUs, minNanoCPUs, "0.01 CPUs"},
		{limits + "memory", r.Limit.MemoryBytes, minMemory, "6 MiB of memory"},
		{reservations + "cpus", r.Reserve.NanoCPUs, 1, "0.01 CPUs"},
		{reservations + "memory", r.Reserve.MemoryBytes, minMemory, "6 MiB of memory"},
	} {
		if a.value != 0 && a.value < a.least {
			at(a.path, "", "the least that an engine takes is %s", a.unit)
		}
	}
	if l, v := r.Limit.NanoCPUs, r.Reserve.NanoCPUs; l > 0 && v > l {
		at(reservations+"cpus", "raise the limit or lower the reservation", "%s CPUs are reserved, and the limit is %s", cpus(v), cpus(l))
	}
	if l, v := r.Limit.MemoryBytes, r.Reserve.MemoryBytes; l > 0 && v > l {
		at(reservations+"memory", "raise the limit or lower the reservation", "%d bytes of memory are reserved, and the limit is %d", v, l)
	}
	if r.Limit.PIDs < -1 {
		at(limits+"pids", "1 or more, or -1 for no limit", "%d is no number of processes", r.Limit.PIDs)
	}
}

func cpus(nano int64) string { return strconv.FormatFloat(float64(nano)/1e9, 'f', -1, 64) }

func (c *checker) swap(r Resources, at atPath) {
	switch s := r.SwapBytes; {
	case s == 0:
	case s < -1:
		at(".memswap_limit", "-1 for no limit", "%d is no amount of memory and swap", s)
	case r.Limit.MemoryBytes == 0:
		at(".memswap_limit", "write mem_limit: too", "a limit of memory and swap goes with a limit of memory")
	case s > 0 && s < r.Limit.MemoryBytes:
		at(".memswap_limit", "it counts memory and swap together, so at least as much as mem_limit",
			"%d bytes of memory and swap are less than %d of memory alone", s, r.Limit.MemoryBytes)
	}
}

func (c *checker) devices(r Resources, at atPath) {
	for i, d := range r.Devices {
		where := fmt.Sprintf(".deploy.resources.reservations.devices[%d]", i)
		switch {
		case d.Count < -1:
			at(where, `"all" or a number`, "%d is no number of devices", d.Count)
		case d.Count != 0 && len(d.IDs) > 0:
			at(where, "keep one of them", "a number of devices and their ids exclude each other")
		case d.Count == 0 && len(d.IDs) == 0:
			at(where, "count: all, a number, or device_ids:", "the request asks for no device")
		case len(d.Capabilities) == 0 && d.Driver != "cdi":
			at(where, "such as capabilities: [gpu]", "the request does not say what the device must be able to do")
		}
	}
	targets := map[string]bool{}
	for i, p := range r.Paths {
		where := fmt.Sprintf(".devices[%d]", i)
		target := p.Container
		if target == "" {
			target = p.Host
		}
		switch {
		case !path.IsAbs(p.Host):
			at(where, "such as /dev/ttyUSB0, which must exist on the host that runs the container", "device %q is no absolute path", p.Host)
		case !path.IsAbs(target):
			at(where, "such as /dev/ttyUSB0", "device %q in the container is no absolute path", p.Container)
		case p.Permissions != "" && !permissions.MatchString(p.Permissions):
			at(where, "of the letters r, w and m", "%q are no permissions of a device", p.Permissions)
		case targets[path.Clean(target)]:
			at(where, "remove one of them", "two devices are %q in the container", target)
		}
		targets[path.Clean(target)] = true
	}
}

// Platforms that hosts of a fleet can have: engines on Linux.
const platformOS = "linux"

// placement checks what needs no knowledge of strategies, rules and
// constraints: their words are pkg/placement's to check, which imports this
// package.
func (c *checker) placement(e *Entity) {
	p := e.Service.Placement
	at := func(path, remedy, format string, args ...any) {
		if own := resourcePaths[path]; own != "" && c.app.Dialect != "compose" {
			path = own
		}
		c.at(e, Position{}, path, remedy, format, args...)
	}
	if p.MaxPerHost < 0 {
		at(".deploy.placement.max_replicas_per_node", "0 for no bound", "%d replicas per host cannot be", p.MaxPerHost)
	}
	if p.MinCores < 0 || p.MinMemory < 0 {
		at(".deploy.placement", "0 or more", "a host cannot have less than nothing")
	}
	if p.Platform != "" {
		parts := strings.Split(p.Platform, "/")
		switch {
		case len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, ""):
			at(".platform", "OS/ARCHITECTURE, such as linux/amd64", "%q is no platform", p.Platform)
		case parts[0] != platformOS:
			at(".platform", "such as linux/amd64", "the hosts of a fleet run Linux, not %s", parts[0])
		}
	}
	u := e.Service.Update
	if u == nil {
		return
	}
	if u.Parallelism < 0 {
		at(".deploy.update_config.parallelism", "0 for all at once", "%d replicas at once cannot be", u.Parallelism)
	}
	if u.Delay < 0 || u.Monitor < 0 {
		at(".deploy.update_config", "such as 10s", "a duration cannot be negative")
	}
	if f := u.OnFailure; f != "" && f != "pause" && f != "continue" && f != "rollback" {
		at(".deploy.update_config.failure_action", "rollback", "%q is no failure action", f)
	}
}
