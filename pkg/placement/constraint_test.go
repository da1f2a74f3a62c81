package placement

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/model"
)

func TestConstraints(t *testing.T) {
	h := Host{
		ID: "x1", Name: "h1", Hostname: "box.example", Up: true, Role: RoleManager, Platform: "linux/arm64",
		Labels: map[string]string{"disk": "SSD"}, EngineLabels: map[string]string{"disk": "engine", "os": "debian"},
	}
	for text, want := range map[string]bool{
		"node.id==x1": true, "node.id != x1": false, "node.hostname == h1": true, "node.hostname == box.example": true,
		"node.hostname != box.example": false, "node.role == manager": true, "node.role != worker": true,
		"node.platform.os == linux": true, "node.platform.arch == aarch64": true, "node.platform.arch == amd64": false,
		"node.labels.disk == ssd": true, "node.labels.disk != ssd": false, "node.labels.os == debian": true,
		"engine.labels.disk == engine": true, "engine.labels.disk == ssd": false, "node.labels.none == x": false, "node.labels.none != x": true,
	} {
		r := Request{App: "a", Service: "s", Placement: model.Placement{Constraints: []string{text}}}
		d := Place([]Host{h}, []Request{r})[0]
		assert.Equal(t, d.Host != "", want, text)
		if !want {
			assert.Assert(t, strings.Contains(d.Refusals[0].Reason, "is asked, it "), d.Refusals[0].Reason)
		}
	}
	for text, want := range map[string]string{
		"": "neither == nor !=", "node.id": "neither == nor !=", "node.id = x": "neither == nor !=", "node.id ! x": "neither == nor !=",
		"== x": "no key", "node.id ==": "no value", "node.ip == 1": "no such key as node.ip", "node.role == boss": "a manager or a worker",
		"node.labels. == x": "names no label", "node.id == a == b": "more than one comparison", "node id == a": "space",
	} {
		_, err := ParseConstraint(text)
		assert.ErrorContains(t, err, want, "%q", text)
	}
	for text, want := range map[string]string{"zone": "node.labels.zone", "node.labels.a.b": "node.labels.a.b", "\tengine.labels.x\n": "engine.labels.x"} {
		got, err := ParsePreference(text)
		assert.NilError(t, err)
		assert.Equal(t, got, want)
	}
	for _, text := range []string{"", "node.id", "node.labels.", "a b", "a=b"} {
		_, err := ParsePreference(text)
		assert.ErrorContains(t, err, "spread over labels", "%q", text)
	}
}

func TestPlatforms(t *testing.T) {
	for _, c := range []struct {
		host, want string
		ok         bool
	}{
		{"linux/amd64", "linux/amd64", true}, {"linux/x86_64", "linux/amd64", true}, {"linux/amd64", "linux/arm64", false},
		{"linux/arm64", "linux/arm64/v8", true}, {"linux/arm/v7", "linux/arm/v6", true}, {"linux/arm/v6", "linux/arm/v7", false},
		{"linux/amd64", "linux", true}, {"windows/amd64", "linux/amd64", false}, {"", "linux/amd64", false},
	} {
		assert.Equal(t, runs(c.host, c.want), c.ok, "%s on %s", c.want, c.host)
	}
}

func TestVolumesPinTheirUsers(t *testing.T) {
	hs := hosts(3)
	hs[2].Volumes = []string{"data", "both"}
	hs[1].Volumes = []string{"both"}
	r := Request{App: "a", Service: "db", Volumes: []string{"data", "both", "new"}}
	f := NewFleet(Policy{}, hs)
	assert.Equal(t, where(f, r, 2), "h3 h3")
	hs[2].Up = false
	f.UpdateHost(hs[2])
	assert.ErrorContains(t, f.Place([]Request{r})[0].Err(), "h1, h2: volume data is on host h3 alone")
	f.RemoveHost("id3")
	assert.Equal(t, where(f, Request{App: "a", Service: "x", Volumes: []string{"both"}}, 1), "h2")
}

func TestDevicesAndGenericResources(t *testing.T) {
	h := Host{ID: "1", Name: "h1", Up: true, Devices: map[string]int64{"gpu": 3, "nvidia/gpu": 2, "amd/gpu": 1, "nvidia/gpu/G0": 1, "nvidia/gpu/G1": 1}, Generic: map[string]int64{"fpga": 2}}
	ask := func(ds ...model.DeviceRequest) Request {
		return Request{App: "a", Service: "x", Resources: model.Resources{Devices: ds}}
	}
	fails := func(f *Fleet, r Request, want string) {
		t.Helper()
		assert.ErrorContains(t, f.Place([]Request{r})[0].Err(), want)
	}
	f := NewFleet(Policy{}, []Host{h})
	assert.Equal(t, where(f, ask(model.DeviceRequest{Driver: "nvidia", IDs: []string{"G1"}}), 1), "h1")
	fails(f, ask(model.DeviceRequest{Driver: "nvidia", IDs: []string{"G1"}}), "device nvidia/gpu G1 is in use")
	fails(f, ask(model.DeviceRequest{Driver: "nvidia", IDs: []string{"G9"}}), "it has no device nvidia/gpu G9")
	fails(f, ask(model.DeviceRequest{Driver: "nvidia", Count: 2}), "not enough devices nvidia/gpu: 2 asked, 1 free")
	fails(f, ask(model.DeviceRequest{Count: -1}), "all devices gpu are asked, 1 of 3 are in use")
	fails(f, ask(model.DeviceRequest{Driver: "intel", Count: 1}), "it has no device intel/gpu")
	// Who names no driver may get any driver's.
	assert.Equal(t, where(f, ask(model.DeviceRequest{Count: 1}), 1), "h1")
	fails(f, ask(model.DeviceRequest{Driver: "nvidia", Count: 1}), "0 free")
	all := NewFleet(Policy{}, []Host{h})
	assert.Equal(t, where(all, ask(model.DeviceRequest{}), 2), "h1 -")
	assert.Equal(t, all.Room(Request{App: "a", Service: "y", Resources: model.Resources{Generic: []model.GenericResource{{Kind: "fpga", Value: 1}}}}), 2)
	fails(all, Request{App: "a", Service: "y", Resources: model.Resources{Generic: []model.GenericResource{{Kind: "fpga", Value: 3}}}}, "not enough fpga: 3 asked, 2 free")
}

// With a thousand hosts the reasons fit on a line.
func TestErrGroupsReasons(t *testing.T) {
	hs := hosts(1000)
	for i := range hs {
		hs[i].Capacity.MemoryBytes = int64(i%5) * gib / 8
		hs[i].Capacity.NanoCPUs = 1e9
		hs[i].Cordoned = i == 6
		if i%10 == 9 {
			hs[i].Ports = map[string]string{"tcp/80": fmt.Sprint("another/web", i)}
		}
	}
	r := Request{App: "a", Service: "web", Slot: 3, Ports: []model.Port{{HostPort: 80, Protocol: "tcp"}}}
	r.Resources.Reserve.MemoryBytes = 2 * gib
	d := Place(hs, []Request{r})[0]
	assert.Equal(t, len(d.Refusals), 1000)
	assert.Error(t, d.Err(), "no host for web.3: 699 hosts: not enough memory: 2GiB asked, at most 512MiB free; "+
		"200 hosts: how much memory it has is not known, 2GiB is asked; 100 hosts: port tcp/80 is taken; h7: it is cordoned")
	d.Refusals = nil
	for i := range 20 {
		d.Refusals = append(d.Refusals, Refusal{Host: fmt.Sprint("h", i), Filter: "x", Reason: fmt.Sprint("reason ", i)})
	}
	assert.Assert(t, strings.HasSuffix(d.Err().Error(), "h7: reason 7; 12 more hosts: other reasons"), d.Err())
}

func TestDynamicPorts(t *testing.T) {
	dynamic := model.Port{ContainerPort: 80, Protocol: "tcp"}
	r := Request{App: "a", Service: "x", Ports: []model.Port{dynamic, {HostPort: 30000, Protocol: "tcp"}, dynamic, {ContainerPort: 53, Protocol: "udp"}}}
	f := NewFleet(Policy{}, hosts(1))
	d := f.Place([]Request{r, r})
	assert.Equal(t, fmt.Sprint(d[0].Ports[0].HostPort, d[0].Ports[1].HostPort, d[0].Ports[2].HostPort, d[0].Ports[3].HostPort), "30001 30000 30002 30000")
	assert.ErrorContains(t, d[1].Err(), "port tcp/30000 is taken by a/x")
	one := Request{App: "a", Service: "y", Ports: []model.Port{dynamic}}
	assert.Equal(t, f.Room(one), dynamicPorts-3)
	n := dynamicPorts - 3
	ds := f.Place(slices.Repeat([]Request{one}, n+1))
	assert.NilError(t, ds[n-1].Err())
	assert.ErrorContains(t, ds[n].Err(), "no port between 30000 and 32767 is free")
	// What goes gives its ports back.
	f.RemoveTask(d[0].Task)
	assert.Equal(t, f.Room(one), 3)
	twice := Request{App: "a", Service: "z", Ports: []model.Port{{HostPort: 90, Protocol: "tcp"}, {HostIP: "10.0.0.1", HostPort: 90, Protocol: "tcp"}}}
	assert.ErrorContains(t, f.Place([]Request{twice})[0].Err(), "asks for port tcp/10.0.0.1:90 twice")
}

// A reservation goes with RemoveTask, and becomes the task with PutTask.
func TestReservations(t *testing.T) {
	hs := hosts(1)
	hs[0].Capacity.MemoryBytes = gib
	f := NewFleet(Policy{}, hs)
	r := Request{App: "a", Service: "x", Task: "t1"}
	r.Resources.Reserve.MemoryBytes = gib
	d := f.Place([]Request{r})[0]
	assert.Equal(t, d.Task, "t1")
	assert.Equal(t, f.Room(r), 0)
	f.PutTask(d.Host, Task{ID: "t1", App: "a", Service: "x", Reserve: r.Resources.Reserve}, nil)
	assert.Equal(t, f.loads[0].left.MemoryBytes, int64(0))
	f.RemoveTask("t1")
	assert.Equal(t, f.Room(r), 1)
}

func FuzzParseConstraint(f *testing.F) {
	for _, s := range []string{"node.labels.disk == ssd", "node.role!=manager", "engine.labels.a.b==c d", "node.platform.arch == x86_64"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseConstraint(text)
		if err != nil {
			return
		}
		again, err := ParseConstraint(c.String())
		assert.NilError(t, err)
		assert.DeepEqual(t, again, c)
		h := Host{ID: "1", Name: "h", Platform: "linux/amd64"}
		not := c
		not.Not = !c.Not
		assert.Assert(t, c.meets(&h) != not.meets(&h))
		assert.Assert(t, c.has(&h) != "")
	})
}

func FuzzParseAffinity(f *testing.F) {
	for _, s := range []string{"NOT TYPE", "SAME APPLICATION x", "NAME a\nID, NOT EMPTY", "PREDICATE up"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		rules, err := ParseAffinity(text)
		if err != nil {
			return
		}
		var texts []string
		for _, r := range rules {
			texts = append(texts, r.String())
			r.accepts(&kind{app: "a", service: "b"}, &kind{app: "a"})
		}
		again, err := ParseAffinity(strings.Join(texts, ","))
		assert.NilError(t, err)
		assert.DeepEqual(t, again, rules)
	})
}
