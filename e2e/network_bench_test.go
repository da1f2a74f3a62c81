package e2e

import (
	"context"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"clocker.io/clocker/e2e/netbench"
	"clocker.io/clocker/e2e/testbed"
)

// benchImage holds a namespace open for the benches, and is small to start.
const benchImage = "clocker.io/test/netbench:1"

// segments are the ways of this project that take part in the benches, by
// the options of their networks. Their networks are made by hand.
var segments = []struct{ name, options string }{
	{"routed", "clocker.carrier=direct"},
	{"vxlan", "clocker.carrier=vxlan"},
	{"wireguard", "clocker.carrier=wireguard"},
	{"bridged", "clocker.segment=bridged"},
}

// contender is a way between two places whose speed is measured.
type contender struct {
	name     string
	from, to netbench.Place
}

// place is a host, or a container on it, as a place to measure at.
func hostPlace(h *testbed.Host) netbench.Place {
	return netbench.Place{Namespace: fmt.Sprintf("/proc/%d/ns/net", h.PID()), Address: h.Address}
}

func containerPlace(ctx context.Context, h *testbed.Host, container, network string) (netbench.Place, error) {
	format := fmt.Sprintf("{{.State.Pid}} {{(index .NetworkSettings.Networks %q).IPAddress}}", network)
	out, err := h.Exec(ctx, "docker", "inspect", "-f", format, container)
	if err != nil {
		return netbench.Place{}, err
	}
	pid, address, ok := strings.Cut(strings.TrimSpace(out), " ")
	if !ok || address == "" {
		return netbench.Place{}, fmt.Errorf("find %s on %s: inspect says %q", container, network, out)
	}
	return netbench.Place{Namespace: h.Root() + "/proc/" + pid + "/ns/net", Address: address}, nil
}

// runOn starts a container on a network and returns its place. It is removed
// with the bench.
func runOn(b testing.TB, h *testbed.Host, network, name string, args ...string) (netbench.Place, error) {
	ctx := b.Context()
	line := append([]string{"docker", "run", "-d", "--name", name, "--network", network}, args...)
	b.Cleanup(func() { h.Exec(context.Background(), "docker", "rm", "-f", name) }) //nolint:errcheck // the testbed goes anyway
	if _, err := h.Exec(ctx, append(line, benchImage)...); err != nil {
		return netbench.Place{}, err
	}
	return containerPlace(ctx, h, name, network)
}

// networkOn makes a network on h1 and waits until it is on all hosts given.
func networkOn(b testing.TB, name string, hosts []*testbed.Host, args ...string) error {
	ctx := b.Context()
	b.Cleanup(func() { hosts[0].Exec(context.Background(), "docker", "network", "rm", name) }) //nolint:errcheck // the testbed goes anyway
	if _, err := hosts[0].Exec(ctx, append(append([]string{"docker", "network", "create"}, args...), name)...); err != nil {
		return err
	}
	for _, h := range hosts {
		if err := eventually(ctx, 15*time.Second, func() error {
			_, err := h.Exec(ctx, "docker", "network", "inspect", name)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

func eventually(ctx context.Context, within time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// contenders sets every way up between h1 and h2. Those that are not to be had
// here are reported and left out.
func (f *fleet) contenders(b *testing.B) []contender {
	h1, h2 := f.bed.Host("h1"), f.bed.Host("h2")
	all := []contender{{"raw", hostPlace(h1), hostPlace(h2)}}
	add := func(name, network string, from, to *testbed.Host) {
		c := contender{name: name}
		var err error
		if c.from, err = runOn(b, from, network, "from-"+name); err == nil {
			c.to, err = runOn(b, to, network, "to-"+name)
		}
		if err != nil {
			b.Logf("%s: not measured: %v", name, err)
			return
		}
		all = append(all, c)
	}
	if err := networkOn(b, "speed-bridge", []*testbed.Host{h1}); err != nil {
		b.Fatal(err)
	}
	add("bridge", "speed-bridge", h1, h1)
	leave, err := f.swarm(b.Context())
	b.Cleanup(leave)
	if err == nil {
		// A worker gets the network with its first container on it.
		err = networkOn(b, "speed-overlay", []*testbed.Host{h1}, "-d", "overlay", "--attachable")
	}
	if err != nil {
		b.Fatal(err)
	}
	add("overlay", "speed-overlay", h1, h2)
	for _, s := range segments {
		if err := networkOn(b, "speed-"+s.name, []*testbed.Host{h1, h2}, "-d", "clocker", "--ipam-driver", "clocker", "-o", s.options); err != nil {
			b.Logf("%s: not measured: %v", s.name, err)
			continue
		}
		add(s.name, "speed-"+s.name, h1, h2)
		if s.name == "routed" {
			add("routed-1host", "speed-routed", h1, h1)
		}
	}
	return all
}

// measure is a row of the table and how it is taken. With apart, the two ends
// have a processor each; else they share one, as what is measured waits for
// the other end all the time, and waking a processor up would be most of it.
type measure struct {
	netbench.Row
	figure string
	apart  bool
	args   []string
}

var measures = []measure{
	{netbench.Row{Name: "TCP, 1 stream", Unit: "Gbit/s", Scale: 1e-9}, "bits_per_second", true, []string{"tcp"}},
	{netbench.Row{Name: "TCP, 8 streams", Unit: "Gbit/s", Scale: 1e-9}, "bits_per_second", true, []string{"tcp", "--streams", "8"}},
	{netbench.Row{Name: "TCP round trip, p50", Unit: "us", Scale: 1, Lower: true}, "p50", false, []string{"rtt"}},
	{netbench.Row{Name: "TCP round trip, p99", Unit: "us", Scale: 1, Lower: true}, "p99", false, nil},
	{netbench.Row{Name: "UDP round trip, p50", Unit: "us", Scale: 1, Lower: true}, "p50", false, []string{"rtt", "--protocol", "udp"}},
	{netbench.Row{Name: "UDP round trip, p99", Unit: "us", Scale: 1, Lower: true}, "p99", false, nil},
	{netbench.Row{Name: "UDP packets of 64 B", Unit: "1000/s", Scale: 1e-3}, "per_second", true, []string{"packets", "--size", "64"}},
	{netbench.Row{Name: "TCP connections", Unit: "1000/s", Scale: 1e-3}, "per_second", false, []string{"connect", "--streams", "2"}},
}

// slice is how long one measure is taken at once: short, and often, so that
// what else the machine does meets all contenders alike.
const slice = 400 * time.Millisecond

// BenchmarkNetworks measures ours beside the raw link between two hosts and
// Docker's own networks, in turns, and prints medians and ratios. "times raw"
// is how many times better than raw; more is better in every row.
func BenchmarkNetworks(b *testing.B) {
	f, ctx := shared, b.Context()
	for _, h := range f.bed.Hosts() {
		if _, err := h.Exec(ctx, "docker", "pull", "-q", benchImage); err != nil {
			b.Fatal(err)
		}
	}
	program, err := netbench.Build(ctx, b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	all := f.contenders(b)
	table := netbench.Table{}
	for _, m := range measures {
		table.Rows = append(table.Rows, m.Row)
	}
	for _, c := range all {
		table.Contenders = append(table.Contenders, c.name)
	}
	for b.Loop() {
		for _, apart := range []bool{true, false} {
			if err := f.round(ctx, program, all, &table, apart); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	for _, pair := range [][2]string{{"routed", "raw"}, {"routed", "overlay"}, {"bridged", "overlay"}, {"vxlan", "overlay"}, {"wireguard", "overlay"}} {
		for _, m := range measures {
			if r := table.Ratio(pair[0], pair[1], m.Row); !math.IsNaN(r) && !strings.HasSuffix(m.Name, "p99") {
				b.ReportMetric(r, pair[0]+"/"+pair[1]+":"+strings.ReplaceAll(m.Name, " ", "_"))
			}
		}
	}
	if err := table.Print(os.Stdout, "raw", "overlay"); err != nil {
		b.Fatal(err)
	}
}

// round takes every measure of one kind once with every contender.
func (f *fleet) round(ctx context.Context, p netbench.Program, all []contender, table *netbench.Table, apart bool) error {
	var servers []*netbench.Running
	defer func() {
		for _, s := range servers {
			s.Stop() //nolint:errcheck // its figures are of no interest
		}
	}()
	server := map[bool]int{true: 1, false: 0}[apart]
	for _, c := range all {
		s, err := p.Serve(ctx, c.to, server)
		if err != nil {
			return err
		}
		servers = append(servers, s)
		if err := eventually(ctx, 5*time.Second, func() error {
			_, err := p.Measure(ctx, c.from, c.to, 0, "connect", "--for", "1ms")
			return err
		}); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	for i, m := range measures {
		if m.apart != apart || m.args == nil {
			continue
		}
		for _, c := range all {
			got, err := p.Measure(ctx, c.from, c.to, 0, m.args[0], append([]string{"--for", slice.String()}, m.args[1:]...)...)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			table.Add(c.name, m.Name, got[m.figure])
			// The rows after it without arguments are of the same run.
			for _, more := range measures[i+1:] {
				if more.args != nil {
					break
				}
				table.Add(c.name, more.Name, got[more.figure])
			}
		}
	}
	return nil
}
