package e2e

import (
	"context"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"clocker.io/clocker/e2e/netbench"
	"clocker.io/clocker/e2e/testbed"
)

// startBase is the contender that the others' starts are measured over.
const startBase = "none"

var startRows = []netbench.Row{
	{Name: "run, p50", Unit: "ms", Scale: 1, Lower: true},
	{Name: "run over none, p50", Unit: "ms", Scale: 1, Lower: true},
	{Name: "connect, p50", Unit: "ms", Scale: 1, Lower: true},
	{Name: "disconnect, p50", Unit: "ms", Scale: 1, Lower: true},
}

// BenchmarkStart measures what a network adds to the start of a container, and
// how long it takes to connect a running one and to disconnect it, in turns on
// one host, by the engine's API.
func BenchmarkStart(b *testing.B) {
	f, ctx := shared, b.Context()
	h1 := f.bed.Host("h1")
	if _, err := h1.Exec(ctx, "docker", "pull", "-q", benchImage); err != nil {
		b.Fatal(err)
	}
	c, err := h1.Client()
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	names := []string{startBase, "bridge"}
	networks := map[string]string{startBase: "none", "bridge": "start-bridge"}
	add := func(name string, hosts []*testbed.Host, args ...string) {
		if err := networkOn(b, "start-"+name, hosts, args...); err != nil {
			b.Logf("%s: not measured: %v", name, err)
			return
		}
		names, networks[name] = append(names, name), "start-"+name
	}
	if err := networkOn(b, "start-bridge", []*testbed.Host{h1}); err != nil {
		b.Fatal(err)
	}
	leave, err := f.swarm(ctx)
	b.Cleanup(leave)
	if err != nil {
		b.Fatal(err)
	}
	add("overlay", []*testbed.Host{h1}, "-d", "overlay", "--attachable")
	// With the way out as applications have it, and as networks made by hand.
	add("routed", f.bed.Hosts()[:2], "-d", "clocker", "--ipam-driver", "clocker", "-o", "clocker.egress=plugin")
	add("routed-gwbridge", f.bed.Hosts()[:2], "-d", "clocker", "--ipam-driver", "clocker")
	add("bridged", f.bed.Hosts()[:2], "-d", "clocker", "--ipam-driver", "clocker", "-o", "clocker.segment=bridged", "-o", "clocker.egress=plugin")
	table := netbench.Table{Contenders: names, Rows: startRows}
	connected, err := startOne(ctx, c, "bridge")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { remove(c, connected) })
	for b.Loop() {
		for range 4 {
			took := map[string]float64{}
			for _, name := range names {
				quiet()
				began := time.Now()
				id, err := startOne(ctx, c, networks[name])
				took[name] = ms(began)
				if err != nil {
					b.Fatalf("%s: %v", name, err)
				}
				remove(c, id)
				table.Add(name, "run, p50", took[name])
				if name == startBase {
					continue
				}
				table.Add(name, "run over none, p50", took[name]-took[startBase])
				quiet()
				began = time.Now()
				if _, err := c.NetworkConnect(ctx, networks[name], client.NetworkConnectOptions{Container: connected}); err != nil {
					b.Fatalf("%s: %v", name, err)
				}
				table.Add(name, "connect, p50", ms(began))
				quiet()
				began = time.Now()
				if _, err := c.NetworkDisconnect(ctx, networks[name], client.NetworkDisconnectOptions{Container: connected}); err != nil {
					b.Fatalf("%s: %v", name, err)
				}
				table.Add(name, "disconnect, p50", ms(began))
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	for _, c := range []string{"routed", "routed-gwbridge", "bridged", "overlay"} {
		for _, r := range startRows {
			// Starts differ by little, and vary by much: medians are compared.
			if x := table.Median("bridge", r.Name) / table.Median(c, r.Name); !math.IsNaN(x) {
				b.ReportMetric(x, c+"/bridge:"+strings.ReplaceAll(r.Name, " ", "_"))
			}
		}
	}
	if err := table.Print(os.Stdout, "bridge"); err != nil {
		b.Fatal(err)
	}
	for _, name := range names {
		for _, r := range startRows {
			if s := table.Samples(name, r.Name); len(s) > 0 {
				fmt.Printf("%s: %s %.0f, p99 %.0f %s of %d\n", name, r.Name, netbench.Quantile(s, 0.5), netbench.Quantile(s, 0.99), r.Unit, len(s))
			}
		}
	}
}

// quiet lets the kernel finish with links that are being removed aside, which
// would hold up whoever is measured next.
func quiet() { <-time.After(150 * time.Millisecond) }

func ms(since time.Time) float64 { return float64(time.Since(since)) / float64(time.Millisecond) }

// startOne makes and starts a container on a network.
func startOne(ctx context.Context, c *client.Client, network string) (string, error) {
	made, err := c.ContainerCreate(ctx, client.ContainerCreateOptions{
		Config:     &container.Config{Image: benchImage},
		HostConfig: &container.HostConfig{NetworkMode: container.NetworkMode(network)},
	})
	if err != nil {
		return "", err
	}
	_, err = c.ContainerStart(ctx, made.ID, client.ContainerStartOptions{})
	return made.ID, err
}

func remove(c *client.Client, id string) {
	c.ContainerRemove(context.Background(), id, client.ContainerRemoveOptions{Force: true}) //nolint:errcheck // the testbed goes anyway
}
