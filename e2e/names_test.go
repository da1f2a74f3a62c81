package e2e

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"clocker.io/clocker/e2e/testbed"
	"clocker.io/clocker/pkg/hostconfig"
)

// onHost runs the docker command on a host and fails the test unless it
// succeeds.
func onHost(t *testing.T, h *testbed.Host, args ...string) string {
	t.Helper()
	out, err := h.Exec(t.Context(), append([]string{"docker"}, args...)...)
	if err != nil {
		t.Fatalf("%s: docker %s: %v", h.Name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(out)
}

// idle runs a container that does nothing, until the test ends.
func idle(t *testing.T, h *testbed.Host, name string, args ...string) (id string) {
	t.Helper()
	t.Cleanup(func() { _, _ = h.Exec(context.Background(), "docker", "rm", "-f", name) })
	return onHost(t, h, append(append([]string{"run", "-d", "--name", name}, args...), "busybox", "sleep", "3600")...)
}

var answered = regexp.MustCompile(`(?m)^Name:.*\nAddress(?: \d+)?: (\S+)`)

// resolve asks from inside a container and gives the addresses, sorted; server
// may be empty for the container's own.
func resolve(t *testing.T, h *testbed.Host, container, name, server string) []string {
	t.Helper()
	args := []string{"docker", "exec", container, "nslookup", "-type=a", name}
	if server != "" {
		args = append(args, server)
	}
	out, _ := h.Exec(t.Context(), args...) // fails when there is no such name
	var addrs []string
	for _, m := range answered.FindAllStringSubmatch(out, -1) {
		addrs = append(addrs, m[1])
	}
	slices.Sort(addrs)
	return slices.Compact(addrs)
}

func resolves(t *testing.T, h *testbed.Host, container, name, server string, want ...string) {
	t.Helper()
	slices.Sort(want)
	await(t, 10*time.Second, fmt.Sprintf("%s on %s finds %s at %v", container, h.Name, name, want), func() error {
		if got := resolve(t, h, container, name, server); !slices.Equal(got, want) {
			return fmt.Errorf("it is at %v", got)
		}
		return nil
	})
}

func addressOn(t *testing.T, h *testbed.Host, container, network string) string {
	t.Helper()
	return onHost(t, h, "inspect", "-f", fmt.Sprintf("{{(index .NetworkSettings.Networks %q).IPAddress}}", network), container)
}

// plainNetwork makes a network by hand on h, and waits until others have it.
func plainNetwork(t *testing.T, f *fleet, h *testbed.Host, name string, args ...string) {
	t.Helper()
	t.Cleanup(func() { _, _ = h.Exec(context.Background(), "docker", "network", "rm", name) })
	onHost(t, h, append(append([]string{"network", "create", "-d", "clocker", "--ipam-driver", "clocker"}, args...), name)...)
	for _, other := range f.bed.Hosts() {
		await(t, 10*time.Second, "network "+name+" is on "+other.Name, func() error {
			_, err := other.Exec(t.Context(), "docker", "network", "inspect", name)
			return err
		})
	}
}

// Containers that plain docker run puts on a network of the fleet must be found
// by their names from every host, as far as their resolver asks the fleet.
func TestPlainContainersMustHaveNames(t *testing.T) { plainNames(t, shared) }

// The same with the oldest engine that is supported.
func TestPlainContainersMustHaveNamesOnEngine20(t *testing.T) {
	f := ownFleet(t, "names20", testbed.Options{Name: bed("names20"), Hosts: 2, Engine: "20"})
	err := f.init(t.Context())
	if err == nil {
		err = f.addHosts(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	plainNames(t, f)
}

func plainNames(t *testing.T, f *fleet) {
	h1, h2 := f.bed.Hosts()[0], f.bed.Hosts()[1]
	plainNetwork(t, f, h1, "town")
	fleetDNS := []string{"--network", "town", "--dns", hostconfig.DNSAddress}
	alpha := idle(t, h1, "alpha", append(fleetDNS, "--network-alias", "first")...)
	idle(t, h2, "beta", fleetDNS...)
	idle(t, h1, "twin", fleetDNS...)
	idle(t, h2, "twin", fleetDNS...)
	idle(t, h2, "deaf", "--network", "town")
	at := func(h *testbed.Host, c string) string { return addressOn(t, h, c, "town") }

	resolves(t, h1, "alpha", "beta", "", at(h2, "beta"))
	resolves(t, h2, "beta", "alpha", "", at(h1, "alpha"))
	resolves(t, h2, "beta", "first", "", at(h1, "alpha"))
	resolves(t, h2, "beta", alpha[:12], "", at(h1, "alpha"))
	// Two containers of one name: the engine's resolver knows its own only,
	// ours gives both.
	resolves(t, h1, "alpha", "twin", "", at(h1, "twin"))
	resolves(t, h1, "alpha", "twin", hostconfig.DNSAddress, at(h1, "twin"), at(h2, "twin"))
	// Without --dns the engine asks the host's servers, who know nothing, but
	// the fleet's can be asked by its address.
	resolves(t, h2, "deaf", "alpha", "")
	resolves(t, h2, "deaf", "alpha", hostconfig.DNSAddress, at(h1, "alpha"))

	// A network joined while it runs, and left.
	plainNetwork(t, f, h2, "country")
	idle(t, h2, "gamma", "--network", "country")
	resolves(t, h1, "alpha", "gamma", "")
	onHost(t, h1, "network", "connect", "country", "alpha")
	resolves(t, h1, "alpha", "gamma", "", addressOn(t, h2, "gamma", "country"))
	resolves(t, h2, "gamma", "alpha", hostconfig.DNSAddress, addressOn(t, h1, "alpha", "country"))
	onHost(t, h1, "network", "disconnect", "country", "alpha")
	resolves(t, h2, "gamma", "alpha", hostconfig.DNSAddress)
	resolves(t, h2, "beta", "alpha", "", at(h1, "alpha"))

	// The dead have no names, the renamed their new one.
	onHost(t, h1, "kill", "alpha")
	resolves(t, h2, "beta", "alpha", "")
	onHost(t, h2, "rename", "beta", "delta")
	t.Cleanup(func() { _, _ = h2.Exec(context.Background(), "docker", "rm", "-f", "delta") })
	resolves(t, h1, "twin", "delta", "", at(h2, "delta"))
}

// A container must not be without names for long when its host's agent is
// killed: Docker starts it again.
func TestNamesMustComeBackWithTheAgent(t *testing.T) {
	f := shared
	h1, h2 := f.bed.Host("h1"), f.bed.Host("h2")
	plainNetwork(t, f, h1, "hamlet")
	idle(t, h1, "asker", "--network", "hamlet", "--dns", hostconfig.DNSAddress)
	idle(t, h2, "asked", "--network", "hamlet")
	want := addressOn(t, h2, "asked", "hamlet")
	resolves(t, h1, "asker", "asked", "", want)
	agent := onHost(t, h1, "ps", "-q", "--filter", "label=io.clocker.system=agent")
	// Not by docker kill: what a user ends so is not started again.
	if _, err := h1.Exec(t.Context(), "kill", "-9", onHost(t, h1, "inspect", "-f", "{{.State.Pid}}", agent)); err != nil {
		t.Fatal(err)
	}
	// Questions are put one after the other without waiting: nslookup repeats
	// an unanswered one after 2.5 s only.
	start, found := time.Now(), make(chan time.Duration, 200)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case took := <-found:
			t.Logf("names were answered again %s after the agent was killed", took)
			return
		case <-t.Context().Done():
			return
		case <-tick.C:
			if time.Since(start) > loaded {
				t.Fatalf("names are not answered again within %s", loaded)
			}
			go func() {
				out, _ := h1.Exec(t.Context(), "docker", "exec", "asker", "nslookup", "-type=a", "asked", hostconfig.DNSAddress)
				if strings.Contains(out, want) {
					found <- time.Since(start)
				}
			}()
		}
	}
}

// What a compose file says of networks must hold on the engines.
func TestNetworkKeysMustHold(t *testing.T) {
	f := shared
	f.deploy(t, "keys", "compose.yaml", `
services:
  fixed:
    image: clocker.io/test/web:1
    networks:
      front: {ipv4_address: 10.77.4.200, mac_address: "02:42:00:00:00:77", aliases: [fix]}
      back: {}
  other:
    image: busybox
    command: sleep 3600
    networks: [front]
networks:
  front:
    driver_opts: {com.docker.network.driver.mtu: "1390"}
    labels: {tier: front}
    ipam: {config: [{subnet: 10.77.4.0/24, gateway: 10.77.4.254, ip_range: 10.77.4.128/25, aux_addresses: {router: 10.77.4.130}}]}
    x-clocker: {dns_search: [example.com]}
  back: {internal: true}
`, "--wait")
	task := f.tasks(t, "keys")["keys-fixed-1"]
	h := f.bed.Host(task.Host)
	if got := addressOn(t, h, "keys-fixed-1", "keys_front"); got != "10.77.4.200" {
		t.Errorf("the fixed address is %q", got)
	}
	if got := onHost(t, h, "inspect", "-f", `{{(index .NetworkSettings.Networks "keys_front").MacAddress}}`, "keys-fixed-1"); got != "02:42:00:00:00:77" {
		t.Errorf("the hardware address is %q", got)
	}
	if got := onHost(t, h, "network", "inspect", "-f", "{{.Internal}} {{(index .IPAM.Config 0).Gateway}} {{.Labels.tier}}", "keys_front"); got != "false 10.77.4.254 front" {
		t.Errorf("network front is %q", got)
	}
	if got := onHost(t, h, "network", "inspect", "-f", "{{.Internal}}", "keys_back"); got != "true" {
		t.Errorf("network back is internal: %q", got)
	}
	other := f.tasks(t, "keys")["keys-other-1"]
	oh := f.bed.Host(other.Host)
	if got := onHost(t, oh, "exec", "keys-other-1", "cat", "/sys/class/net/eth0/mtu"); got != "1390" {
		t.Errorf("the MTU is %q", got)
	}
	if got := addressOn(t, oh, "keys-other-1", "keys_front"); !strings.HasPrefix(got, "10.77.4.") || got == "10.77.4.130" {
		t.Errorf("the other address is %q", got)
	}
	if got := onHost(t, oh, "exec", "keys-other-1", "cat", "/etc/resolv.conf"); !strings.Contains(got, "search example.com") {
		t.Errorf("resolv.conf is %q", got)
	}
	// With the dot: nslookup puts the search domain behind every other name.
	resolves(t, oh, "keys-other-1", "keys-fixed-1.", "", "10.77.4.200")
	resolves(t, oh, "keys-other-1", "tasks.fixed.", "", "10.77.4.200")

	// The address stays over stop and start.
	f.clocker(t, "stop", "keys")
	f.clocker(t, "start", "keys")
	await(t, 20*time.Second, "the fixed address is there again", func() error {
		task := f.tasks(t, "keys")["keys-fixed-1"]
		if a := task.Addresses; !strings.Contains(fmt.Sprint(a), "10.77.4.200") {
			return fmt.Errorf("addresses are %v", a)
		}
		return nil
	})
	f.refused(t, 2, []string{"services.fixed.networks.front.ipv4_address", "cannot be that of 2 replicas"},
		"deploy", writeFile(t, "compose.yaml", `
services:
  fixed: {image: "busybox", scale: 2, networks: {front: {ipv4_address: 10.77.5.2}}}
networks: {front: {ipam: {config: [{subnet: 10.77.5.0/24}]}}}
`), "--app", "bad")
}
