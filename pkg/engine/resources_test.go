package engine

import (
	"testing"

	"github.com/moby/moby/api/types/container"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
)

// TestResources holds what an engine is asked for, and that it is asked for
// nothing where a service says nothing.
func TestResources(t *testing.T) {
	o, err := createOptions(ContainerRequest{Spec: record.ContainerSpec{Name: "x", Image: "x"}}, true)
	assert.NilError(t, err)
	assert.DeepEqual(t, o.HostConfig.Resources, container.Resources{})
	assert.Assert(t, o.Platform == nil)

	o, err = createOptions(ContainerRequest{Spec: record.ContainerSpec{Name: "x", Image: "x", Platform: "linux/arm/v7", Resources: model.Resources{
		Limit:   model.Amounts{NanoCPUs: 5e8, MemoryBytes: 64 << 20, PIDs: 50},
		Reserve: model.Amounts{NanoCPUs: 1e8, MemoryBytes: 32 << 20}, SwapBytes: -1, CPUShares: 512, CPUSet: "0-1",
		Devices: []model.DeviceRequest{
			{Driver: "nvidia", Count: -1, Capabilities: []string{"gpu", "utility"}, Options: map[string]string{"a": "b"}},
			{Driver: "cdi", IDs: []string{"vendor.com/class=one"}},
		},
		Paths:   []model.DevicePath{{Host: "/dev/a"}, {Host: "/dev/b", Container: "/dev/c", Permissions: "r"}},
		Generic: []model.GenericResource{{Kind: "ssd", Value: 1}}, // a matter of placement
	}}}, true)
	assert.NilError(t, err)
	pids := int64(50)
	assert.DeepEqual(t, o.HostConfig.Resources, container.Resources{
		NanoCPUs: 5e8, Memory: 64 << 20, MemoryReservation: 32 << 20, MemorySwap: -1, CPUShares: 512, CpusetCpus: "0-1", PidsLimit: &pids,
		Devices: []container.DeviceMapping{
			{PathOnHost: "/dev/a", PathInContainer: "/dev/a", CgroupPermissions: "rwm"},
			{PathOnHost: "/dev/b", PathInContainer: "/dev/c", CgroupPermissions: "r"},
		},
		DeviceRequests: []container.DeviceRequest{
			{Driver: "nvidia", Count: -1, Capabilities: [][]string{{"gpu", "utility"}}, Options: map[string]string{"a": "b"}},
			{Driver: "cdi", DeviceIDs: []string{"vendor.com/class=one"}},
		},
	})
	assert.DeepEqual(t, *o.Platform, ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"})
	for _, bad := range []string{"linux", "/amd64", "linux/", "a/b/c/d"} {
		_, err := createOptions(ContainerRequest{Spec: record.ContainerSpec{Platform: bad}}, true)
		assert.ErrorContains(t, err, "is no platform")
	}
}
