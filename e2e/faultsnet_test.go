package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"clocker.io/clocker/e2e/netbench"
	"clocker.io/clocker/e2e/testbed"
	"clocker.io/clocker/netplugin/bundle"
)

// steady is a network with a container on each of three hosts, whose traffic
// must go on whatever happens.
type steady struct {
	*fleet
	program netbench.Program
	etcd    *testbed.Etcd
	places  map[string]netbench.Place // by host
}

const (
	steadyNetwork = "steady"
	// pluginName is how engines know the managed plugin.
	pluginName = "clocker-net:latest"
	// between is the time between two packets of the traffic.
	between = 5 * time.Millisecond
)

// newSteady makes the hosts, the fleet on an etcd of its own, the network and
// the containers, which start again with their engines.
func newSteady(t *testing.T) *steady {
	t.Helper()
	s := &steady{fleet: ownFleet(t, "steady", testbed.Options{Name: bed("net"), Hosts: 3, Engine: "28"}), places: map[string]netbench.Place{}}
	ctx := t.Context()
	var err error
	if s.program, err = netbench.Build(ctx, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if s.etcd, err = s.bed.Etcd(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if err = s.init(ctx, "--etcd", strings.Join(s.etcd.Endpoints(), ",")); err == nil {
		err = s.addHosts(ctx)
	}
	if err == nil {
		err = networkOn(t, steadyNetwork, s.bed.Hosts(), "-d", "clocker", "--ipam-driver", "clocker", "-o", "clocker.egress=plugin")
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range s.bed.Hosts() {
		s.places[h.Name] = s.run(t, h, "on-"+h.Name, "--restart", "always")
	}
	return s
}

// run starts a container on the network, which answers pings by itself.
func (s *steady) run(t *testing.T, h *testbed.Host, name string, args ...string) netbench.Place {
	t.Helper()
	p, err := runOn(t, h, steadyNetwork, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	p.Port = "7000"
	return p
}

// during pings the container of one host from another's while something
// happens, and returns what was lost.
func (s *steady) during(t *testing.T, from, to netbench.Place, f func()) (lost int, gap time.Duration) {
	t.Helper()
	// On its way before, and after, so that an event is seen whole.
	if _, err := s.program.Measure(t.Context(), from, to, -1, "rtt", "--protocol", "udp", "--for", "20ms"); err != nil {
		t.Fatal(err)
	}
	p, err := s.program.Ping(t.Context(), from, to, between)
	if err != nil {
		t.Fatal(err)
	}
	f()
	got, err := p.Stop()
	if err != nil {
		t.Fatal(err)
	}
	gap = time.Duration(got["longest_gap_ms"] * float64(time.Millisecond))
	t.Logf("%.0f packets, %.0f lost, longest gap %s", got["sent"], got["lost"], gap.Round(time.Millisecond))
	return int(got["lost"]), gap
}

// unharmed is during with the bound that no event but a cut or a restart of an
// end may break. A machine that is busy may hold a packet back for a while,
// and two in a thousand are forgiven for queues that overflow then.
func (s *steady) unharmed(t *testing.T, from, to netbench.Place, f func()) {
	t.Helper()
	began := time.Now()
	lost, gap := s.during(t, from, to, f)
	// Single packets may go while the way changes on a busy machine; the figures
	// are above. An outage is more than 100 ms of them; a gap without a loss is
	// the machine's.
	if allowed := int(100*time.Millisecond/between) + int(time.Since(began)/between)/500; lost > allowed || gap > 3*time.Second {
		t.Errorf("%d packets lost (allowed %d), longest gap %s", lost, allowed, gap)
	}
}

// agree waits until what engines, kernels and etcd hold of the network is the
// same on every host, and until doctor finds nothing.
func (s *steady) agree(t *testing.T) {
	t.Helper()
	await(t, 30*time.Second, "engines and kernels agree", func() error {
		all := map[string][]netip.Addr{}
		for _, h := range s.bed.Hosts() {
			out, err := h.Exec(t.Context(), "docker", "network", "inspect", "-f", "{{range .Containers}}{{.IPv4Address}} {{end}}", steadyNetwork)
			if err != nil {
				return err
			}
			for _, f := range strings.Fields(out) {
				a, err := netip.ParsePrefix(f)
				if err != nil {
					return err
				}
				all[h.Name] = append(all[h.Name], a.Addr())
			}
		}
		for _, h := range s.bed.Hosts() {
			if err := agrees(t.Context(), h, all, s.bed); err != nil {
				return fmt.Errorf("%s: %w", h.Name, err)
			}
		}
		if r := s.command(t.Context(), "clocker", "doctor"); r.code != 0 {
			return r.err()
		}
		return nil
	})
}

// agrees compares a host's links, routes and pinned addresses with where the
// containers are.
func agrees(ctx context.Context, h *testbed.Host, all map[string][]netip.Addr, bed *testbed.Testbed) error {
	out, err := h.Exec(ctx, "sh", "-c", "ip -br link show type veth | grep -c '^ck' || true")
	if err != nil {
		return err
	}
	if got := strings.TrimSpace(out); got != fmt.Sprint(len(all[h.Name])) {
		return fmt.Errorf("%s links for %d containers", got, len(all[h.Name]))
	}
	var own []netip.Addr
	for name, addrs := range all {
		for _, a := range addrs {
			out, err := h.Exec(ctx, "ip", "-j", "route", "get", a.String())
			if err != nil {
				return err
			}
			var routes []struct{ Dev, Gateway string }
			if err := json.Unmarshal([]byte(out), &routes); err != nil || len(routes) != 1 {
				return fmt.Errorf("route to %s: %s %w", a, out, err)
			}
			switch {
			case name == h.Name && !strings.HasPrefix(routes[0].Dev, "ck"):
				return fmt.Errorf("the route to %s, which is here, is by %s", a, routes[0].Dev)
			case name != h.Name && routes[0].Gateway != bed.Host(name).Address:
				return fmt.Errorf("the route to %s, which is on %s, is by %q", a, name, routes[0].Gateway)
			}
			if name == h.Name {
				own = append(own, a)
			}
		}
	}
	if out, err = h.Exec(ctx, "nft", "-j", "list", "set", "inet", "clocker", "pins"); err != nil {
		return err
	}
	for _, a := range own {
		if !strings.Contains(out, `"`+a.String()+`"`) {
			return fmt.Errorf("%s is not pinned to a link", a)
		}
	}
	return nil
}

// Traffic between containers must go on while parts of the plugin, engines,
// hosts and etcd go and come, and afterwards state and kernel must agree.
func TestTrafficMustOutliveFaults(t *testing.T) {
	s := newSteady(t)
	ctx := t.Context()
	h1, h2, h3 := s.bed.Host("h1"), s.bed.Host("h2"), s.bed.Host("h3")
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	back := func(t *testing.T, h *testbed.Host) {
		t.Helper()
		await(t, 30*time.Second, "the plugin of "+h.Name+" serves again", func() error {
			_, err := h.Exec(ctx, "docker", "run", "--rm", "--network", steadyNetwork, benchImage, "ping", s.places["h1"].Address, "--for", "10ms")
			return err
		})
	}
	reaches := func(t *testing.T, from, to netbench.Place, within time.Duration) {
		t.Helper()
		took := await(t, within, "packets get through", func() error {
			_, err := s.program.Measure(ctx, from, to, -1, "rtt", "--protocol", "udp", "--for", "5ms")
			return err
		})
		t.Logf("packets got through after %s", took.Round(time.Millisecond))
	}
	t.Run("plugin killed", func(t *testing.T) {
		s.unharmed(t, s.places["h1"], s.places["h2"], func() {
			kill(t, h1, "clocker-net", "")
			kill(t, h2, "clocker-net", "")
			back(t, h1)
			back(t, h2)
		})
		s.agree(t)
	})
	t.Run("plugin disabled and enabled", func(t *testing.T) {
		s.unharmed(t, s.places["h1"], s.places["h2"], func() {
			must(t, h2.DisablePlugin(ctx, pluginName))
			must(t, h2.EnablePlugin(ctx, pluginName))
			back(t, h2)
		})
		s.agree(t)
	})
	t.Run("plugin upgraded", func(t *testing.T) {
		dir := unpackPlugin(t, h2)
		s.unharmed(t, s.places["h1"], s.places["h2"], func() {
			must(t, h2.DisablePlugin(ctx, pluginName))
			for _, args := range [][]string{{"rm", "-f", pluginName}, {"create", pluginName, dir}, {"enable", pluginName}} {
				_, err := h2.Exec(ctx, append([]string{"docker", "plugin"}, args...)...)
				must(t, err)
			}
			back(t, h2)
		})
		s.agree(t)
	})
	t.Run("engine restarts with live-restore", func(t *testing.T) {
		must(t, h2.KeepContainers(ctx, true))
		s.unharmed(t, s.places["h1"], s.places["h2"], func() {
			must(t, h2.KillEngine(ctx))
			must(t, h2.WaitReady(ctx))
			back(t, h2)
		})
		must(t, h2.KeepContainers(ctx, false))
		s.agree(t)
	})
	t.Run("engine restarts without live-restore", func(t *testing.T) {
		// The traffic of others does not notice; the container starts again,
		// and may have another address.
		s.unharmed(t, s.places["h1"], s.places["h3"], func() {
			must(t, h2.KillEngine(ctx))
			must(t, h2.WaitReady(ctx))
			s.find(t, h2)
			reaches(t, s.places["h1"], s.places["h2"], 20*time.Second)
		})
		s.agree(t)
	})
	t.Run("third host restarts", func(t *testing.T) {
		s.unharmed(t, s.places["h1"], s.places["h2"], func() { must(t, h3.Restart(ctx)) })
		s.find(t, h3)
		reaches(t, s.places["h1"], s.places["h3"], 20*time.Second)
		s.agree(t)
	})
	t.Run("etcd away", func(t *testing.T) {
		s.unharmed(t, s.places["h1"], s.places["h2"], func() {
			must(t, s.etcd.Pause(0))
			end := time.Now().Add(etcdAway(t))
			// New containers are served from what their hosts own.
			for i := 0; i < 2 || time.Now().Before(end); i++ {
				p := s.run(t, h2, fmt.Sprintf("new-%d", i))
				reaches(t, s.places["h1"], p, 10*time.Second)
				_, err := h2.Exec(ctx, "docker", "rm", "-f", fmt.Sprintf("new-%d", i))
				must(t, err)
				select {
				case <-ctx.Done():
				case <-time.After(min(5*time.Second, time.Until(end))):
				}
			}
			must(t, s.etcd.Resume(0))
		})
		s.agree(t)
	})
	t.Run("a host cut off", func(t *testing.T) {
		beside := s.run(t, h2, "beside")
		lost, gap := s.during(t, s.places["h1"], s.places["h2"], func() {
			s.unharmed(t, beside, s.places["h2"], func() {
				must(t, s.bed.Partition("h2", ""))
				p := s.run(t, h2, "meanwhile")
				reaches(t, beside, p, 5*time.Second)
				// An address of another host's block cannot be had.
				other := netip.MustParseAddr(s.places["h1"].Address).Next().String()
				_, err := runOn(t, h2, steadyNetwork, "refused", "--ip", other)
				if err == nil || !strings.Contains(err.Error(), other) {
					t.Errorf("an address of a host that cannot be reached: %v", err)
				}
				t.Logf("refused: %v", err)
			})
			must(t, s.bed.Heal())
			reaches(t, s.places["h1"], s.places["h2"], 10*time.Second)
		})
		if lost == 0 || gap > time.Minute {
			t.Errorf("%d packets lost, gap %s: was it cut off?", lost, gap)
		}
		_, err := h2.Exec(ctx, "docker", "rm", "-f", "beside", "meanwhile", "refused")
		must(t, err)
		s.agree(t)
	})
}

// find waits until a host's container runs, and learns where it is now.
func (s *steady) find(t *testing.T, h *testbed.Host) {
	t.Helper()
	await(t, 30*time.Second, "the container of "+h.Name+" runs", func() error {
		p, err := containerPlace(t.Context(), h, "on-"+h.Name, steadyNetwork)
		if err == nil {
			if _, err = os.Stat(p.Namespace); err == nil {
				p.Port = "7000"
				s.places[h.Name] = p
			}
		}
		return err
	})
}

// etcdAway is how long etcd is away: CLOCKER_E2E_ETCD_AWAY, or a while.
func etcdAway(t *testing.T) time.Duration {
	t.Helper()
	v := os.Getenv("CLOCKER_E2E_ETCD_AWAY")
	if v == "" {
		return 8 * time.Second
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// unpackPlugin lays out the plugin of the next version on a host, as `docker
// plugin create` takes it, and returns where it is there.
func unpackPlugin(t *testing.T, h *testbed.Host) string {
	t.Helper()
	f, err := os.Open(filepath.Join(bin(), "clocker-net"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	dir := "/tmp/next-plugin"
	c := h.Command(t.Context(), "sh", "-c", "mkdir -p "+dir+" && tar xf - -C "+dir)
	in, err := c.StdinPipe()
	if err == nil {
		err = c.Start()
	}
	if err == nil {
		err = bundle.Tar(in, f, info.Size(), "next")
	}
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	return dir
}
