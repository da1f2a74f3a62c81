package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// `docker network create -d clocker NAME` on one host must make the network on
// all of them: containers that plain `docker run` puts on it reach each other
// across hosts, have the internet's side of a bridge, and published ports
// work and show; and removing it removes it everywhere.
func TestPlainNetworkMustSpanTheFleet(t *testing.T) {
	f := shared
	for _, c := range []struct {
		name, remover string
		options       []string
	}{
		{"own IPAM", "h2", []string{"--ipam-driver", "clocker"}},
		{"engine's IPAM", "h1", []string{"--subnet", "10.99.0.0/16"}},
		{"nothing else", "h3", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			create := append(append([]string{"docker", "network", "create", "-d", "clocker"}, c.options...), "plain")
			etcd := f.etcd(t)
			keys := f.keys(t, etcd)
			h1 := f.bed.Host("h1")
			if _, err := h1.Exec(t.Context(), create...); err != nil {
				t.Fatal(err)
			}
			for _, h := range f.bed.Hosts() {
				await(t, 10*time.Second, "the network is on "+h.Name, func() error {
					_, err := h.Exec(t.Context(), "docker", "network", "inspect", "plain")
					return err
				})
			}
			addresses := map[string]string{}
			for _, h := range f.bed.Hosts()[:2] {
				if _, err := h.Exec(t.Context(), "docker", "run", "-d", "--name", "plain-"+h.Name, "--network", "plain", "-p", "18050:80", "clocker.io/test/web:1"); err != nil {
					t.Fatal(err)
				}
				out, err := h.Exec(t.Context(), "docker", "inspect", "-f", "{{.NetworkSettings.Networks.plain.IPAddress}}", "plain-"+h.Name)
				if err != nil {
					t.Fatal(err)
				}
				addresses[h.Name] = strings.TrimSpace(out)
			}
			if addresses["h1"] == addresses["h2"] {
				t.Errorf("both containers have the address %s", addresses["h1"])
			}
			base := "http://" + h1.Address + ":18050"
			await(t, 5*time.Second, "the container on h1 reaches the one on h2", func() error {
				_, _, err := get(t.Context(), fmt.Sprintf("%s/dial?addr=%s:80", base, addresses["h2"]))
				return err
			})
			if out, _ := h1.Exec(t.Context(), "docker", "ps", "--format", "{{.Ports}}", "--filter", "name=plain-h1"); !strings.Contains(out, "18050") {
				t.Errorf("docker ps shows no port: %q", out)
			}
			for _, h := range f.bed.Hosts()[:2] {
				if _, err := h.Exec(t.Context(), "docker", "rm", "-f", "plain-"+h.Name); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := f.bed.Host(c.remover).Exec(t.Context(), "docker", "network", "rm", "plain"); err != nil {
				t.Fatal(err)
			}
			for _, h := range f.bed.Hosts() {
				await(t, 15*time.Second, "the network is gone from "+h.Name, func() error {
					if out, err := h.Exec(t.Context(), "docker", "network", "inspect", "plain"); err == nil {
						return fmt.Errorf("it is there: %s", out)
					}
					return nil
				})
			}
			await(t, 10*time.Second, "etcd is as before", func() error { return keys.difference(f.keys(t, etcd)) })
		})
	}
}

// A compose file may use a network made by hand.
func TestExternalNetworkMustBeShared(t *testing.T) {
	f := shared
	h1 := f.bed.Host("h1")
	if _, err := h1.Exec(t.Context(), "docker", "network", "create", "-d", "clocker", "--ipam-driver", "clocker", "shared-net"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h1.Exec(context.Background(), "docker", "network", "rm", "shared-net") }) //nolint:errcheck // told below when it stays
	await(t, 10*time.Second, "the network is on h3", func() error {
		_, err := f.bed.Host("h3").Exec(t.Context(), "docker", "network", "inspect", "shared-net")
		return err
	})
	file := func(port int) string {
		return fmt.Sprintf("services:\n  web:\n    image: clocker.io/test/web:1\n    ports: ['%d:80']\n    networks: [common]\nnetworks:\n  common: {external: true, name: shared-net}\n", port)
	}
	f.deploy(t, "left", "compose.yaml", file(18051))
	f.deploy(t, "right", "compose.yaml", file(18052))
	left := f.tasks(t, "left")["left-web-1"]
	await(t, 3*time.Second, "left reaches right by name", func() error {
		_, _, err := get(t.Context(), fmt.Sprintf("http://%s:18051/dial?addr=web.right:80", left.HostAddress))
		return err
	})
	f.clocker(t, "rm", "left")
	f.clocker(t, "rm", "right")
	if _, err := h1.Exec(t.Context(), "docker", "network", "rm", "shared-net"); err != nil {
		t.Error(err)
	}
}
