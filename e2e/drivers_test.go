package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// pings sends an echo from a container's network to an address.
func (f *fleet) pings(t *testing.T, host, container, to string) error {
	t.Helper()
	h := f.bed.Host(host)
	pid, err := h.Exec(t.Context(), "docker", "inspect", "--format", "{{.State.Pid}}", container)
	if err != nil {
		return err
	}
	out, err := h.Exec(t.Context(), "nsenter", "-t", strings.TrimSpace(pid), "-n", "ping", "-n", "-c1", "-W2", to)
	if err != nil {
		return fmt.Errorf("ping %s: %w: %s", to, err, out)
	}
	return nil
}

// A network that another of the engine's drivers carries must have the same
// subnet on every host and no address twice, and its containers must reach
// each other as far as that driver brings them.
func TestNetworkOfAnotherDriverMustHaveTheFleetsAddresses(t *testing.T) {
	f := shared
	f.network(t, "lan", "--driver", "macvlan", "-o", "parent=eth0", "--subnet", "10.43.0.0/24")
	for _, h := range f.bed.Hosts() {
		out, err := h.Exec(t.Context(), "docker", "network", "inspect", "lan", "--format", "{{.Driver}} {{.IPAM.Driver}} {{(index .IPAM.Config 0).Subnet}}")
		if err != nil || strings.TrimSpace(out) != "macvlan clocker 10.43.0.0/24" {
			t.Errorf("%s: %q, %v", h.Name, out, err)
		}
	}
	seen := map[string]bool{}
	for _, x := range [][2]string{{"h1", "lan1"}, {"h1", "lan2"}, {"h2", "lan3"}} {
		f.container(t, x[0], x[1], "lan")
		seen[f.dockerAddress(t, x[0], x[1], "lan")] = true
	}
	if len(seen) != 3 || seen[""] {
		t.Fatalf("addresses %v, want three", seen)
	}
	for a := range seen {
		for _, x := range [][2]string{{"h1", "lan1"}, {"h2", "lan3"}} {
			await(t, 10*time.Second, "neighbours", func() error { return f.pings(t, x[0], x[1], a) })
		}
	}
	// etcd knows them, and does not take them for leaks.
	await(t, 10*time.Second, "addresses in etcd", func() error {
		if n := len(f.inspectNetwork(t, "lan").InUse); n != 3 {
			return fmt.Errorf("%d addresses", n)
		}
		return nil
	})
	f.bed.Host("h1").Exec(context.Background(), "docker", "rm", "-f", "lan1") //nolint:errcheck // what follows tells
	await(t, 10*time.Second, "an address given back", func() error {
		if n := len(f.inspectNetwork(t, "lan").InUse); n != 2 {
			return fmt.Errorf("%d addresses", n)
		}
		return nil
	})
}

// Docker's own bridge carries a network on each host by itself, with addresses
// of the fleet.
func TestNetworkOfDockersBridge(t *testing.T) {
	f := shared
	f.network(t, "own", "--driver", "bridge", "--subnet", "10.44.0.0/24")
	f.container(t, "h1", "own1", "own")
	f.container(t, "h1", "own2", "own")
	a, b := f.dockerAddress(t, "h1", "own1", "own"), f.dockerAddress(t, "h1", "own2", "own")
	if a == b || a == "" || b == "" {
		t.Fatalf("addresses %q and %q", a, b)
	}
	await(t, 10*time.Second, "neighbours", func() error { return f.pings(t, "h1", "own1", b) })
}

// The driver option of a network made by hand must be refused with the command
// that does it, and leave nothing.
func TestDriverOptionIsRefused(t *testing.T) {
	h := shared.bed.Hosts()[0]
	out, err := h.Exec(t.Context(), "docker", "network", "create", "-d", "clocker", "--ipam-driver", "clocker", "-o", "clocker.driver=macvlan", "mine")
	if err == nil || !strings.Contains(fmt.Sprint(out, err), "docker clocker network create --driver macvlan NAME") {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := h.Exec(t.Context(), "docker", "network", "inspect", "mine"); err == nil {
		t.Error("the network is there")
	}
}

// A bridged network made by hand is one link over all hosts.
func TestBridgedNetworkMustBeOneLink(t *testing.T) {
	f := shared
	f.network(t, "frames", "--segment", "bridged")
	f.container(t, "h1", "frames1", "frames")
	f.container(t, "h2", "frames2", "frames")
	b := f.dockerAddress(t, "h2", "frames2", "frames")
	await(t, 10*time.Second, "neighbours", func() error { return f.pings(t, "h1", "frames1", b) })
	h := f.bed.Host("h1")
	pid, err := h.Exec(t.Context(), "docker", "inspect", "--format", "{{.State.Pid}}", "frames1")
	if err != nil {
		t.Fatal(err)
	}
	out, err := h.Exec(t.Context(), "nsenter", "-t", strings.TrimSpace(pid), "-n", "ip", "neigh", "show", b)
	if err != nil || !strings.Contains(out, "lladdr 02:42:") {
		t.Errorf("the neighbour %s is not on the link: %q, %v", b, out, err)
	}
}

// dockerAddress is what an engine says that a container's address is.
func (f *fleet) dockerAddress(t *testing.T, host, container, network string) string {
	t.Helper()
	out, err := f.bed.Host(host).Exec(t.Context(), "docker", "inspect", "--format", "{{(index .NetworkSettings.Networks \""+network+"\").IPAddress}}", container)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}
