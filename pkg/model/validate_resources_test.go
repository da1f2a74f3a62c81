package model_test

import (
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/model"
)

func TestValidateResources(t *testing.T) {
	good := valid()
	web := good.Entities[0].Service
	web.Resources = model.Resources{
		Limit: model.Amounts{NanoCPUs: 5e8, MemoryBytes: 6 << 20, PIDs: -1}, Reserve: model.Amounts{NanoCPUs: 5e8, MemoryBytes: 6 << 20},
		SwapBytes: -1, CPUShares: 2, CPUSet: "0-2,4",
		Devices: []model.DeviceRequest{{Count: -1, Capabilities: []string{"gpu"}}, {Driver: "cdi", IDs: []string{"v/c=1"}}},
		Paths:   []model.DevicePath{{Host: "/dev/a", Container: "/dev/b", Permissions: "rw"}},
		Generic: []model.GenericResource{{Kind: "ssd", Value: 1}},
	}
	web.Placement = model.Placement{Platform: "linux/arm64/v8", MaxPerHost: 2, MinCores: 1, MinMemory: 1}
	web.Update = &model.Update{Parallelism: 1, StartFirst: true, OnFailure: "rollback"}
	assert.Equal(t, len(model.Validate(good)), 0, model.Validate(good))

	const limits, reservations = "services.web.deploy.resources.limits.", "services.web.deploy.resources.reservations."
	for want, spoil := range map[string]func(r *model.Resources, p *model.Placement, u *model.Update){
		limits + "cpus: the least":         func(r *model.Resources, _ *model.Placement, _ *model.Update) { r.Limit.NanoCPUs = 1 },
		limits + "memory: the least":       func(r *model.Resources, _ *model.Placement, _ *model.Update) { r.Limit.MemoryBytes = 4096 },
		reservations + "memory: the least": func(r *model.Resources, _ *model.Placement, _ *model.Update) { r.Reserve.MemoryBytes = -1 },
		reservations + "cpus: the least":   func(r *model.Resources, _ *model.Placement, _ *model.Update) { r.Reserve.NanoCPUs = -5 },
		limits + "pids: -2":                func(r *model.Resources, _ *model.Placement, _ *model.Update) { r.Limit.PIDs = -2 },
		"2 CPUs are reserved, and the limit is 1.5": func(r *model.Resources, _ *model.Placement, _ *model.Update) {
			r.Limit.NanoCPUs, r.Reserve.NanoCPUs = 15e8, 2e9
		},
		"bytes of memory are reserved, and the limit": func(r *model.Resources, _ *model.Placement, _ *model.Update) {
			r.Limit.MemoryBytes, r.Reserve.MemoryBytes = 7<<20, 8<<20
		},
		"goes with a limit of memory": func(r *model.Resources, _ *model.Placement, _ *model.Update) { r.SwapBytes = 1 << 30 },
		"less than 1073741824 of memory alone": func(r *model.Resources, _ *model.Placement, _ *model.Update) {
			r.Limit.MemoryBytes, r.SwapBytes = 1<<30, 1<<29
		},
		"-2 is no amount of memory and swap": func(r *model.Resources, _ *model.Placement, _ *model.Update) { r.SwapBytes = -2 },
		"1 CPU shares are not between":       func(r *model.Resources, _ *model.Placement, _ *model.Update) { r.CPUShares = 1 },
		`"0-" names no CPUs`:                 func(r *model.Resources, _ *model.Placement, _ *model.Update) { r.CPUSet = "0-" },
		"their ids exclude each other": func(r *model.Resources, _ *model.Placement, _ *model.Update) {
			r.Devices = []model.DeviceRequest{{Count: 1, IDs: []string{"0"}, Capabilities: []string{"gpu"}}}
		},
		"asks for no device": func(r *model.Resources, _ *model.Placement, _ *model.Update) {
			r.Devices = []model.DeviceRequest{{Capabilities: []string{"gpu"}}}
		},
		"what the device must be able to do": func(r *model.Resources, _ *model.Placement, _ *model.Update) {
			r.Devices = []model.DeviceRequest{{Count: 1}}
		},
		"-2 is no number of devices": func(r *model.Resources, _ *model.Placement, _ *model.Update) {
			r.Devices = []model.DeviceRequest{{Count: -2}}
		},
		`device "a" is no absolute path`: func(r *model.Resources, _ *model.Placement, _ *model.Update) {
			r.Paths = []model.DevicePath{{Host: "a"}}
		},
		`"b" in the container is no absolute path`: func(r *model.Resources, _ *model.Placement, _ *model.Update) {
			r.Paths = []model.DevicePath{{Host: "/a", Container: "b"}}
		},
		`"x" are no permissions`: func(r *model.Resources, _ *model.Placement, _ *model.Update) {
			r.Paths = []model.DevicePath{{Host: "/a", Permissions: "x"}}
		},
		`two devices are "/a/" in the container`: func(r *model.Resources, _ *model.Placement, _ *model.Update) {
			r.Paths = []model.DevicePath{{Host: "/a"}, {Host: "/b", Container: "/a/"}}
		},
		`"" is no kind of a resource`: func(r *model.Resources, _ *model.Placement, _ *model.Update) {
			r.Generic = []model.GenericResource{{Value: 1}}
		},
		"0 of ssd cannot be kept free": func(r *model.Resources, _ *model.Placement, _ *model.Update) {
			r.Generic = []model.GenericResource{{Kind: "ssd"}}
		},
		"resource ssd is reserved twice": func(r *model.Resources, _ *model.Placement, _ *model.Update) {
			r.Generic = []model.GenericResource{{Kind: "ssd", Value: 1}, {Kind: "ssd", Value: 2}}
		},
		`services.web.platform: "linux" is no platform`: func(_ *model.Resources, p *model.Placement, _ *model.Update) { p.Platform = "linux" },
		"the hosts of a fleet run Linux, not windows":   func(_ *model.Resources, p *model.Placement, _ *model.Update) { p.Platform = "windows/amd64" },
		"-1 replicas per host":                          func(_ *model.Resources, p *model.Placement, _ *model.Update) { p.MaxPerHost = -1 },
		"less than nothing":                             func(_ *model.Resources, p *model.Placement, _ *model.Update) { p.MinCores = -1 },
		"-1 replicas at once":                           func(_ *model.Resources, _ *model.Placement, u *model.Update) { u.Parallelism = -1 },
		"a duration cannot be negative":                 func(_ *model.Resources, _ *model.Placement, u *model.Update) { u.Delay = -1 },
		`"panic" is no failure action`:                  func(_ *model.Resources, _ *model.Placement, u *model.Update) { u.OnFailure = "panic" },
	} {
		a := valid()
		s := a.Entities[0].Service
		s.Update = &model.Update{}
		spoil(&s.Resources, &s.Placement, s.Update)
		found := model.Validate(a)
		assert.Assert(t, len(found) == 1 && strings.Contains(found[0].String(), want), "%s: %v", want, found)
	}
	// A blueprint writes them elsewhere.
	a := valid()
	a.Dialect = "blueprint"
	a.Entities[0].Service.Resources.Limit.MemoryBytes = 1
	assert.Equal(t, model.Validate(a)[0].Path, "services[0].docker.memory")
}
