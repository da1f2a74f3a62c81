package agent

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/engine"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

const procTCP = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   2: 3535FEA9:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   3: 0B03580A:0016 0103580A:C350 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
`

const procUDP6 = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
   0: 00000000000000000000000000000000:0202 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0 0
   1: 00000000000000000000000000000000:D431 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0 0
`

func TestListening(t *testing.T) {
	got, err := listening(strings.NewReader(procTCP), "tcp", 32768)
	assert.NilError(t, err)
	assert.DeepEqual(t, got, []string{"tcp/8080", "tcp/22"})
	got, err = listening(strings.NewReader(procUDP6), "udp6", 32768)
	assert.NilError(t, err)
	assert.DeepEqual(t, got, []string{"udp/514"})
	_, err = listening(strings.NewReader("head\n 0: xyz 0 0A\n"), "tcp", 1)
	assert.ErrorContains(t, err, "malformed")
	assert.Equal(t, ephemeralFrom("40000\t60999\n"), uint16(40000))
	assert.Equal(t, ephemeralFrom(""), uint16(32768))
}

func FuzzListening(f *testing.F) {
	f.Add(procTCP)
	f.Add(procUDP6)
	f.Fuzz(func(t *testing.T, s string) {
		got, err := listening(strings.NewReader(s), "tcp", 32768)
		for _, p := range got {
			if err == nil && !strings.HasPrefix(p, "tcp/") {
				t.Fatalf("port %q", p)
			}
		}
	})
}

func TestHostsOwnPortsAreSeen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	defer func() { _ = l.Close() }()
	ports, err := hostListening()
	assert.NilError(t, err)
	_, port, err := net.SplitHostPort(l.Addr().String())
	assert.NilError(t, err)
	assert.Assert(t, strings.Contains(strings.Join(ports, " ")+" ", "tcp/"+port+" "), "%v", ports)
	_, err = hostRoutes()
	assert.NilError(t, err)
}

func TestClaim(t *testing.T) {
	port := func(ip string, n uint16, proto string) []model.Port {
		return []model.Port{{HostIP: ip, HostPort: n, ContainerPort: 80, Protocol: proto}}
	}
	want := task1(record.PhasePrepare, func(a *assigned) { a.Container.Ports = port("", 80, "tcp"); a.CreatedAt = noon })
	other := func(phase string, ps []model.Port, f func(*assigned)) map[string]assigned {
		b := task1(phase)
		b.Task, b.App, b.Container.Name, b.Container.Ports, b.CreatedAt = "t2", "blog", "blog-web-1", ps, noon
		if f != nil {
			f(&b)
		}
		return map[string]assigned{"t1": want, "t2": b}
	}
	leaving := func(app string) []engine.Container {
		return []engine.Container{box("t9", engine.Running, func(c *engine.Container) {
			c.Ports = port("", 80, "tcp")
			c.Labels[engine.LabelApp], c.Labels[engine.LabelService], c.Labels[engine.LabelSlot] = app, "web", "1"
		})}
	}
	for _, c := range []struct {
		name       string
		all        map[string]assigned
		containers []engine.Container
		held       int
		err        string
		fatal      bool
	}{
		{name: "free", all: map[string]assigned{"t1": want}},
		{name: "taken", all: other(record.PhaseRun, port("", 80, "tcp"), nil), err: "port tcp/80 is taken by blog-web-1 of application blog", fatal: true},
		{name: "taken by one that is stopped", all: other(record.PhaseStop, port("", 80, "tcp"), nil), err: "port tcp/80 is taken by blog-web-1 of application blog", fatal: true},
		{name: "taken on one address", all: other(record.PhaseRun, port("10.0.0.1", 80, "tcp"), nil), err: "port tcp/80 is taken by blog-web-1 of application blog", fatal: true},
		{name: "another protocol", all: other(record.PhaseRun, port("", 80, "udp"), nil)},
		{name: "another port", all: other(record.PhaseRun, port("", 81, "tcp"), nil)},
		{name: "asked for later", all: other(record.PhasePrepare, port("", 80, "tcp"), nil)},
		{name: "asked for before", all: other(record.PhasePrepare, port("", 80, "tcp"), func(a *assigned) { a.CreatedAt = noon.Add(-1) }), err: "port tcp/80 is taken by blog-web-1 of application blog", fatal: true},
		{name: "of the same replica", all: other(record.PhaseRun, port("", 80, "tcp"), func(a *assigned) { a.App = "shop" }), held: 1},
		{name: "of the same replica, going", all: map[string]assigned{"t1": want}, containers: leaving("shop"), held: 1},
		{name: "of another, going", all: map[string]assigned{"t1": want}, containers: leaving("blog"), err: "port tcp/80 is still held by shop-web-1, which is being removed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := claim(want, c.all, c.containers)
			assert.Equal(t, len(got.held), c.held)
			assert.Equal(t, got.fatal, c.fatal)
			if c.err == "" {
				assert.NilError(t, got.err)
			} else {
				assert.Error(t, got.err, c.err)
			}
		})
	}
}

func TestHostCheck(t *testing.T) {
	root := t.TempDir()
	assert.NilError(t, os.Mkdir(root+"/data", 0o700))
	h := hostCheck{root: root}
	assert.NilError(t, h.mounts([]model.Mount{
		{Type: model.MountBind, Source: "/data", Target: "/a"},
		{Type: model.MountBind, Source: "/made", Target: "/b", CreateHostPath: true},
		{Type: model.MountVolume, Source: "vol", Target: "/c"},
	}))
	missing := []model.Mount{{Type: model.MountBind, Source: "/x", Target: "/a"}, {Type: model.MountBind, Source: "/y", Target: "/b"}}
	assert.Error(t, h.mounts(missing), "mount /x at /a: there is no such path on this host\nmount /y at /b: there is no such path on this host")
	assert.NilError(t, hostCheck{}.mounts(missing), "nothing is known of a host that is not seen")

	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	assert.NilError(t, err)
	defer func() { _ = udp.Close() }()
	ps := []model.Port{{HostIP: "127.0.0.1", HostPort: uint16(udp.LocalAddr().(*net.UDPAddr).Port), ContainerPort: 1, Protocol: "udp"}}
	assert.ErrorContains(t, h.ports(t.Context(), ps, nil), "taken by another program")
	assert.NilError(t, h.ports(t.Context(), ps, []socket{socketOf(ps[0])}), "held by the replica itself")
	ps[0].Protocol = "tcp"
	assert.NilError(t, h.ports(t.Context(), ps, nil))
	ps[0].HostIP = "192.0.2.1"
	assert.ErrorContains(t, h.ports(t.Context(), ps, nil), "this host has no address 192.0.2.1")
}

func TestCache(t *testing.T) {
	dir, id := t.TempDir(), identity{"f", "h1"}
	none, err := loadCache(dir, id)
	assert.NilError(t, err)
	assert.Assert(t, none == nil)
	c := &cached{Fleet: "f", Host: "h1", Assignments: []cachedTask{{Revision: 7, Assignment: task1(record.PhaseRun).Assignment}},
		Observed: []record.Observed{{Task: "t1", At: noon.Add(time.Hour)}}}
	assert.NilError(t, c.save(dir))
	got, err := loadCache(dir, id)
	assert.NilError(t, err)
	assert.DeepEqual(t, got, c)
	ch := got.change(store.NewKeys("f"))
	assert.Assert(t, ch.Reset && len(ch.Puts) == 1 && ch.Puts[0].Revision == 7, "%+v", ch)
	other, err := loadCache(dir, identity{"f", "h2"})
	assert.NilError(t, err)
	assert.Assert(t, other == nil, "another host's state is none of ours")
	assert.NilError(t, os.WriteFile(cacheFile(dir), []byte("{"), 0o600))
	_, err = loadCache(dir, id)
	assert.ErrorContains(t, err, "read agent's state")
}
