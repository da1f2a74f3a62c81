package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// inventories looks at every host of the fleet.
func (f *fleet) inventories(t *testing.T) map[string]inventory {
	t.Helper()
	out := map[string]inventory{}
	for _, h := range f.bed.Hosts() {
		out[h.Name] = inventoryOf(t, h, nil)
	}
	return out
}

// unchanged waits until hosts and etcd hold what they held before: engines
// and kernels finish some of their work aside.
func (f *fleet) unchanged(t *testing.T, before map[string]inventory, keys inventory, etcd *clientv3.Client) {
	t.Helper()
	await(t, 15*time.Second, "nothing is left", func() error {
		if err := keys.difference(f.keys(t, etcd)); err != nil {
			return fmt.Errorf("etcd: %w", err)
		}
		for _, h := range f.bed.Hosts() {
			if err := before[h.Name].difference(inventoryOf(t, h, nil)); err != nil {
				return fmt.Errorf("%s: %w", h.Name, err)
			}
		}
		return nil
	})
}

// After rm, no container, network, address, rule or key of the application
// may be left anywhere.
func TestRemoveMustLeaveNothing(t *testing.T) {
	f := shared
	etcd := f.etcd(t)
	before, keys := f.inventories(t), f.keys(t, etcd)
	f.deploy(t, "gone", "compose.yaml", fmt.Sprintf(stack, 18070))
	if f.keys(t, etcd)["keys"] == keys["keys"] {
		t.Fatal("the deploy left no trace in etcd: this test would not see what stays")
	}
	f.clocker(t, "rm", "gone")
	f.unchanged(t, before, keys, etcd)
}

// After host rm, nothing of docker clocker may be left on the host, and it
// must be able to come back.
func TestRemovedHostMustBeAsBefore(t *testing.T) {
	f := shared
	ctx := t.Context()
	h3 := f.bed.Host("h3")
	f.deploy(t, "moves", "compose.yaml", fmt.Sprintf(stack, 18071))
	// A network made by hand is on h3 too, and must not hold it back.
	h1 := f.bed.Host("h1")
	if _, err := h1.Exec(ctx, "docker", "network", "create", "-d", "clocker", "--ipam-driver", "clocker", "byhand"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := h1.Exec(context.Background(), "docker", "network", "rm", "byhand"); err != nil {
			t.Error(err)
		}
	})
	await(t, 10*time.Second, "the network is on h3", func() error {
		_, err := h3.Exec(ctx, "docker", "network", "inspect", "byhand")
		return err
	})
	f.clocker(t, "host", "rm", "h3")
	for name, task := range f.tasks(t, "moves") {
		if task.Host == "h3" {
			t.Errorf("%s is still on h3", name)
		}
	}
	await(t, 10*time.Second, "the application runs on the others", func() error {
		r := f.command(ctx, "clocker", "ls", "--format", "{{.Name}} {{.Status}}")
		if !strings.Contains(r.stdout, "moves running") {
			return fmt.Errorf("%s%s", r.stdout, r.stderr)
		}
		return nil
	})
	left := inventoryOf(t, h3, hostLooks)
	for look, text := range left {
		if look != "rules" && (strings.Contains(text, "clocker.io/clocker") || strings.Contains(text, "clocker-") || strings.Contains(text, "clocker:") || strings.Contains(text, " clocker")) {
			t.Errorf("%s of h3 still hold:\n%s", look, text)
		}
	}
	if strings.Contains(left["rules"], "table inet clocker") || strings.Contains(left["rules"], `"ck`) {
		t.Errorf("rules of h3 still hold:\n%s", left["rules"])
	}
	for _, look := range []string{"files"} {
		if left[look] != "" {
			t.Errorf("%s of h3 still hold:\n%s", look, left[look])
		}
	}
	// Clean means: adopting and removing again changes nothing at all.
	if err := f.addHost(ctx, h3, false).err(); err != nil {
		t.Fatal(err)
	}
	f.clocker(t, "host", "rm", "h3")
	if err := left.difference(inventoryOf(t, h3, hostLooks)); err != nil {
		t.Errorf("a second round leaves a difference: %v", err)
	}
	if err := f.addHost(ctx, h3, false).err(); err != nil {
		t.Fatal(err)
	}
}
