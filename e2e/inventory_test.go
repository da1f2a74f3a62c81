package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"testing"
	"time"

	"clocker.io/clocker/e2e/testbed"
	"clocker.io/clocker/pkg/store"

	"crypto/tls"
	"crypto/x509"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// looks are the commands whose output is everything on a host that docker
// clocker could leave something in.
var looks = map[string][]string{
	"containers": {"docker", "ps", "-a", "--format", "{{.Names}} {{.Image}}"},
	"networks":   {"docker", "network", "ls", "--format", "{{.Name}} {{.Driver}}"},
	"volumes":    {"docker", "volume", "ls", "--format", "{{.Name}} {{.Driver}}"},
	"plugins":    {"docker", "plugin", "ls", "--format", "{{.Name}} {{.Enabled}}"},
	"links":      {"sh", "-c", "ip -o link | awk -F': ' '{print $2}' | sed 's/@.*//' | grep -v -e '^veth' -e '^docker_gwbridge$' || true"},
	"addresses":  {"sh", "-c", "ip -o -4 addr | awk '{print $2, $4}' | grep -v '^docker_gwbridge' || true"},
	"routes":     {"sh", "-c", "ip route show table all type unicast; ip route show type blackhole"},
	"neighbours": {"sh", "-c", "ip neigh show nud permanent"},
	"rules":      {"sh", "-c", "nft -s list ruleset 2>/dev/null"},
}

// hostLooks are more of them, for a host that leaves the fleet.
var hostLooks = map[string][]string{
	"images": {"docker", "images", "--format", "{{.Repository}}:{{.Tag}}"},
	"files":  {"sh", "-c", "find /etc/clocker /var/lib/clocker /run/clocker /run/docker/plugins -mindepth 1 2>/dev/null | grep -v '^/run/docker/plugins$' || true"},
}

// inventory is what a host, or etcd, holds, by look.
type inventory map[string]string

// volatile are parts of a look that change by themselves.
var volatile = regexp.MustCompile(`(# handle \d+|counter packets \d+ bytes \d+|expires \S+| linkdown)`)

func inventoryOf(t *testing.T, h *testbed.Host, more map[string][]string) inventory {
	t.Helper()
	inv := inventory{}
	for _, set := range []map[string][]string{looks, more} {
		for name, command := range set {
			out, err := h.Exec(t.Context(), command...)
			if err != nil {
				t.Fatalf("look at %s of %s: %v", name, h.Name, err)
			}
			lines := strings.Split(volatile.ReplaceAllString(out, ""), "\n")
			if name != "rules" {
				sort.Strings(lines)
			}
			inv[name] = strings.TrimSpace(strings.Join(lines, "\n"))
		}
	}
	return inv
}

// difference names the looks in which two inventories differ.
func (a inventory) difference(b inventory) error {
	var out []string
	for name := range a {
		if a[name] != b[name] {
			out = append(out, fmt.Sprintf("%s differ:\n--- before\n%s\n--- after\n%s", name, a[name], b[name]))
		}
	}
	sort.Strings(out)
	if len(out) == 0 {
		return nil
	}
	return fmt.Errorf("%s", strings.Join(out, "\n"))
}

// etcd connects to the fleet's embedded etcd as its superuser, with the
// certificate that only the controller's own volume holds.
func (f *fleet) etcd(t testing.TB) *clientv3.Client {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"ca.pem", "root.pem", "root-key.pem"} {
		r := f.command(t.Context(), "cp", "clocker-controller:/config/"+name, filepath.Join(dir, name))
		if r.code != 0 {
			t.Fatal(r.err())
		}
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "root.pem"), filepath.Join(dir, "root-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"https://" + f.bed.Hosts()[0].Address + ":7481"}, DialTimeout: 5 * time.Second, Logger: zap.NewNop(),
		TLS: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, MinVersion: tls.VersionTLS13},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// keys are the fleet's keys but those that come and go by themselves: events,
// leases, the election, and the guard that only counts.
func (f *fleet) keys(t *testing.T, c *clientv3.Client) inventory {
	t.Helper()
	k := store.NewKeys(f.name)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	r, err := c.Get(ctx, k.Prefix(), clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, kv := range r.Kvs {
		key := string(kv.Key)
		if strings.HasPrefix(key, k.Events()) || strings.HasPrefix(key, k.Audit()) || strings.HasPrefix(key, k.Election()) || strings.HasSuffix(key, "/lease") || key == k.NetworkGuard() {
			continue
		}
		keys = append(keys, strings.TrimPrefix(key, k.Prefix()))
	}
	return inventory{"keys": strings.Join(keys, "\n")}
}
