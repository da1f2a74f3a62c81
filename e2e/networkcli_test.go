package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/trace"
)

// network makes a network with `docker clocker network create`, and removes it
// with everything on it when the test ends.
func (f *fleet) network(t *testing.T, name string, flags ...string) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if r := f.command(ctx, "clocker", "network", "rm", "--force", name); r.code != 0 {
			t.Error(r.err())
		}
	})
	f.clocker(t, append(append([]string{"network", "create"}, flags...), name)...)
}

// container runs the web image on a host until the test ends.
func (f *fleet) container(t *testing.T, host, name, network string, flags ...string) {
	t.Helper()
	h := f.bed.Host(host)
	t.Cleanup(func() { h.Exec(context.Background(), "docker", "rm", "-f", name) }) //nolint:errcheck // the network's removal tells
	args := append([]string{"docker", "run", "-d", "--name", name, "--network", network}, flags...)
	if _, err := h.Exec(t.Context(), append(args, "clocker.io/test/web:1")...); err != nil {
		t.Fatal(err)
	}
}

func (f *fleet) inspectNetwork(t *testing.T, name string) api.NetworkDetail {
	t.Helper()
	var all []api.NetworkDetail
	if err := json.Unmarshal([]byte(f.clocker(t, "network", "inspect", name)), &all); err != nil {
		t.Fatal(err)
	}
	return all[0]
}

// addressOf waits until etcd has the IPv4 address of a container.
func (f *fleet) addressOf(t *testing.T, network, container string) string {
	t.Helper()
	var address string
	await(t, 5*time.Second, "the address of "+container, func() error {
		for _, e := range f.inspectNetwork(t, network).InUse {
			if e.Container == container && strings.Contains(e.Address, ".") {
				address = e.Address
				return nil
			}
		}
		return fmt.Errorf("network %s has no %s", network, container)
	})
	return address
}

// `docker clocker network create` must not end before every host has the
// Docker network, as asked for, and `rm` not before none has, with nothing left.
func TestNetworkMadeFromAnywhereMustBeOnEveryHost(t *testing.T) {
	f := shared
	etcd := f.etcd(t)
	keys := f.keys(t, etcd)
	f.clocker(t, "network", "create", "--subnet", "10.41.0.0/16", "--ip-range", "10.41.2.0/24", "--gateway", "10.41.0.254",
		"--aux-address", "printer=10.41.2.1", "--label", "tier=1", "--internal", "everywhere")
	for _, h := range f.bed.Hosts() {
		out, err := h.Exec(t.Context(), "docker", "network", "inspect", "everywhere", "--format",
			"{{.Internal}} {{(index .IPAM.Config 0).Subnet}} {{(index .IPAM.Config 0).Gateway}} {{index .Labels \"tier\"}}")
		if err != nil || strings.TrimSpace(out) != "true 10.41.0.0/16 10.41.0.254 1" {
			t.Errorf("%s: %q, %v", h.Name, out, err)
		}
	}
	n := f.inspectNetwork(t, "everywhere")
	for _, on := range n.On {
		if !on.Present {
			t.Errorf("inspect does not know that host %s has the network", on.Name)
		}
	}
	if got := f.clocker(t, "network", "rm", "everywhere"); got != "everywhere\n" {
		t.Errorf("rm prints %q", got)
	}
	for _, h := range f.bed.Hosts() {
		if out, err := h.Exec(t.Context(), "docker", "network", "inspect", "everywhere"); err == nil {
			t.Errorf("%s still has it: %s", h.Name, out)
		}
	}
	if err := keys.difference(f.keys(t, etcd)); err != nil {
		t.Error(err)
	}
}

// A network that containers are on must not be removed, running or not, and
// the refusal must name them and their hosts.
func TestNetworkInUseMustNotBeRemoved(t *testing.T) {
	f := shared
	f.network(t, "busy")
	f.container(t, "h2", "busy-running", "busy")
	f.container(t, "h3", "busy-stopped", "busy")
	if _, err := f.bed.Host("h3").Exec(t.Context(), "docker", "stop", "-t", "0", "busy-stopped"); err != nil {
		t.Fatal(err)
	}
	f.refused(t, 5, []string{"network busy is in use", "on host h2: busy-running", "on host h3: busy-stopped"}, "network", "rm", "busy")
	for _, h := range f.bed.Hosts() {
		if _, err := h.Exec(t.Context(), "docker", "network", "inspect", "busy"); err != nil {
			t.Errorf("%s: %v", h.Name, err)
		}
	}
}

// What is wrong with a network must be said all at once, and nothing be left.
func TestBadNetworkMustBeRefusedWithEverythingThatIsWrong(t *testing.T) {
	f := shared
	etcd := f.etcd(t)
	keys := f.keys(t, etcd)
	f.refused(t, 2, []string{"gateway 10.43.0.1 is not in subnet 10.42.0.0/16", "MTU 9000 is too large: host", `carrier "pigeon"`},
		"network", "create", "--subnet", "10.42.0.0/16", "--gateway", "10.43.0.1", "--mtu", "9000", "--carrier", "pigeon", "bad")
	_, subnet, err := net.ParseCIDR(f.bed.Host("h2").Address + "/28")
	if err != nil {
		t.Fatal(err)
	}
	f.refused(t, 2, []string{"meets the route to", "of host h1"}, "network", "create", "--subnet", subnet.String(), "bad")
	f.refused(t, 5, []string{"meets the route to", "of host h2"}, "pool", "add", "--size", "29", "bad", subnet.String())
	f.refused(t, 4, []string{"no network bad"}, "network", "rm", "bad")
	if err := keys.difference(f.keys(t, etcd)); err != nil {
		t.Error(err)
	}
}

// What `docker clocker trace` says must be what happens to a connection.
func TestTraceMustAgreeWithConnections(t *testing.T) {
	f := shared
	f.network(t, "trace-a")
	f.network(t, "trace-b")
	f.container(t, "h1", "trace-left", "trace-a", "-p", "18060:80")
	f.container(t, "h2", "trace-right", "trace-a")
	f.container(t, "h3", "trace-other", "trace-b")
	right, other := f.addressOf(t, "trace-a", "trace-right"), f.addressOf(t, "trace-b", "trace-other")
	h1 := f.bed.Host("h1")
	// Hosts hear of a rule's change each by itself.
	check := func(what, address, to string, open bool, kind string) {
		t.Helper()
		await(t, 5*time.Second, what, func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			page, _, err := get(ctx, fmt.Sprintf("http://%s:18060/dial?addr=%s", h1.Address, address))
			if reached := err == nil && strings.Contains(page, "->"); reached != open {
				return fmt.Errorf("a connection to %s: %v, want %v (%s %w)", address, reached, open, page, err)
			}
			r := f.command(t.Context(), "clocker", "trace", "--format", "json", "trace-left", to)
			var got trace.Result
			if err := json.Unmarshal([]byte(r.stdout), &got); err != nil {
				return fmt.Errorf("%w\n%s%s", err, r.stdout, r.stderr)
			}
			b := got.Broken()
			switch {
			case open && (b != nil || r.code != 0):
				return fmt.Errorf("trace says broken, exit %d: %+v", r.code, b)
			case !open && (b == nil || b.Kind != kind || r.code != 1):
				return fmt.Errorf("trace says %+v, exit %d, want a broken %s", b, r.code, kind)
			}
			return nil
		})
	}
	check("one network", right+":80", "trace-right:80", true, "")
	check("another network", other+":80", "trace-other:80", false, trace.HopRule)
	check("the host's own service", h1.Address+":22", "host:h1:22", false, trace.HopRule)
	check("another host's service", f.bed.Host("h2").Address+":22", "host:h2:22", false, trace.HopRule)
	check("the metadata address", "169.254.169.254:80", "169.254.169.254:80", false, trace.HopRule)
	rule := strings.TrimSpace(f.clocker(t, "network", "rule", "add", "trace-a", "trace-b:80"))
	await(t, 2*time.Second, "the rule", func() error {
		_, _, err := get(t.Context(), fmt.Sprintf("http://%s:18060/dial?addr=%s:80", h1.Address, other))
		return err
	})
	check("another network, opened", other+":80", "trace-other:80", true, "")
	f.clocker(t, "network", "rule", "rm", rule)
	check("closed again", other+":80", "trace-other:80", false, trace.HopRule)
	f.refused(t, 1, nil, "trace", "trace-left", "trace-nobody")
	if _, err := f.bed.Host("h2").Exec(t.Context(), "docker", "stop", "-t", "0", "trace-right"); err != nil {
		t.Fatal(err)
	}
	await(t, 5*time.Second, "the stopped container is known to be gone", func() error {
		if r := f.command(t.Context(), "clocker", "trace", "trace-left", right+":80"); r.code != 1 || !strings.Contains(r.stdout, "nothing has that address") {
			return r.err()
		}
		return nil
	})
}

// What something else has done to a host's networks must be found by `doctor`,
// and mended by `--fix`.
func TestDoctorMustFindAndMend(t *testing.T) {
	f := shared
	f.network(t, "ill")
	f.container(t, "h1", "ill-left", "ill", "-p", "18061:80")
	f.container(t, "h2", "ill-right", "ill")
	right := f.addressOf(t, "ill", "ill-right")
	h1 := f.bed.Host("h1")
	reach := func() error {
		_, _, err := get(t.Context(), fmt.Sprintf("http://%s:18061/dial?addr=%s:80", h1.Address, right))
		return err
	}
	await(t, 5*time.Second, "the connection", reach)
	if r := f.command(t.Context(), "clocker", "doctor"); r.code != 0 {
		t.Fatal(r.err())
	}
	for _, c := range []struct{ what, says, command string }{
		{"a packet filter that was flushed", "filter", "nft flush chain inet clocker entering"},
		{"a Docker network that was removed", "networks", "docker network rm ill-spare"},
	} {
		t.Run(c.what, func(t *testing.T) {
			if strings.Contains(c.command, "ill-spare") {
				f.network(t, "ill-spare")
			}
			if _, err := f.bed.Host("h2").Exec(t.Context(), strings.Fields(c.command)...); err != nil {
				t.Fatal(err)
			}
			// The host may mend it by itself before it is asked.
			r := f.command(t.Context(), "clocker", "doctor", "--fix")
			if r.code != 0 || r.stdout != "" && !strings.Contains(r.stdout, c.says) {
				t.Error(r.err(), r.stdout)
			}
			if r := f.command(t.Context(), "clocker", "doctor"); r.code != 0 {
				t.Error(r.err())
			}
			await(t, 5*time.Second, "the connection", reach)
		})
	}
}

// A host that does not answer must be a finding, and must not keep the others
// from being looked at.
func TestDoctorMustReportAHostThatIsAway(t *testing.T) {
	f := shared
	h3 := f.bed.Host("h3")
	f.forgive(t, "h3")
	if err := f.bed.Partition("h3", ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.bed.Heal(); err != nil {
			t.Error(err)
		}
		await(t, 30*time.Second, h3.Name+" is back", func() error {
			if r := f.command(context.Background(), "clocker", "doctor"); r.code != 0 {
				return r.err()
			}
			return nil
		})
	}()
	await(t, 40*time.Second, "the finding", func() error {
		r := f.command(t.Context(), "clocker", "doctor", "--format", "json")
		if r.code != 1 || !strings.Contains(r.stdout, `"Host":"h3"`) || !strings.Contains(r.stdout, "does not answer") || strings.Contains(r.stdout, `"Host":"h2"`) {
			return fmt.Errorf("exit %d: %s%s", r.code, r.stdout, r.stderr)
		}
		return nil
	})
}

// A machine that is attached must reach the network's containers from an
// address of its own, and no longer once it is detached.
func TestAttachedMachineMustBeOnTheNetwork(t *testing.T) {
	f := shared
	f.network(t, "machines")
	f.container(t, "h1", "machines-web", "machines")
	web := f.addressOf(t, "machines", "machines-web")
	h3 := f.bed.Host("h3")
	connect := func() error {
		_, err := h3.Exec(t.Context(), "timeout", "2", "bash", "-c", "exec 3<>/dev/tcp/"+web+"/80")
		return err
	}
	if connect() == nil {
		t.Error("a machine that is not on the network reaches its containers")
	}
	f.refused(t, 1, nil, "trace", "host:h3", "machines-web:80")
	address := strings.TrimSpace(f.clocker(t, "network", "attach", "machines", "--host", "h3"))
	await(t, 5*time.Second, "a connection from "+address, connect)
	if out := f.clocker(t, "trace", "host:h3", "machines-web:80"); !strings.Contains(out, address) {
		t.Errorf("trace does not begin at %s:\n%s", address, out)
	}
	if out := f.clocker(t, "network", "inspect", "--topology", "machines"); !strings.Contains(out, address) || !strings.Contains(out, "the machine itself") {
		t.Errorf("the topology lacks the machine:\n%s", out)
	}
	f.refused(t, 5, []string{"on host h3: the machine itself", "on host h1: machines-web"}, "network", "rm", "machines")
	f.clocker(t, "network", "detach", "machines", "--host", "h3")
	await(t, 5*time.Second, "the machine is off the network", func() error {
		if connect() == nil {
			return fmt.Errorf("it still reaches %s", web)
		}
		return nil
	})
}
