package engine

import (
	"fmt"
	"maps"
	"strings"

	"github.com/moby/moby/api/types/container"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"clocker.io/clocker/pkg/model"
)

// resources puts what a container may use, and the devices it is given, into
// the engine's terms. A reservation of CPUs is a matter of placement alone; one
// of memory is also the engine's soft limit.
func resources(host *container.HostConfig, r model.Resources) {
	host.NanoCPUs = r.Limit.NanoCPUs
	host.Memory = r.Limit.MemoryBytes
	host.MemoryReservation = r.Reserve.MemoryBytes
	host.MemorySwap = r.SwapBytes
	host.CPUShares = r.CPUShares
	host.CpusetCpus = r.CPUSet
	if n := r.Limit.PIDs; n != 0 {
		host.PidsLimit = &n
	}
	for _, p := range r.Paths {
		m := container.DeviceMapping{PathOnHost: p.Host, PathInContainer: p.Container, CgroupPermissions: p.Permissions}
		if m.PathInContainer == "" {
			m.PathInContainer = p.Host
		}
		if m.CgroupPermissions == "" {
			m.CgroupPermissions = "rwm"
		}
		host.Devices = append(host.Devices, m)
	}
	for _, d := range r.Devices {
		q := container.DeviceRequest{Driver: d.Driver, Count: d.Count, DeviceIDs: d.IDs, Options: maps.Clone(d.Options)}
		if len(d.Capabilities) > 0 {
			q.Capabilities = [][]string{d.Capabilities} // one list: a device must have each of them
		}
		host.DeviceRequests = append(host.DeviceRequests, q)
	}
}

// platform reads "os/arch[/variant]"; nil means that of the engine.
func platform(text string) (*ocispec.Platform, error) {
	if text == "" {
		return nil, nil
	}
	parts := strings.Split(text, "/")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || parts[1] == "" {
		return nil, fmt.Errorf("%q is no platform: write OS/ARCHITECTURE, such as linux/amd64", text)
	}
	p := &ocispec.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p, nil
}
