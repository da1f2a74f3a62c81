package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	clientv3 "go.etcd.io/etcd/client/v3"

	"clocker.io/clocker/e2e/testbed"
	"clocker.io/clocker/netplugin/nettest"
	"clocker.io/clocker/pkg/hostconfig"
	"clocker.io/clocker/pkg/record"
)

// asker asks the DNS server of one host, from its own namespace.
type asker struct {
	name string
	conn net.Conn
}

func newAsker(b *testing.B, h *testbed.Host) *asker {
	b.Helper()
	a := &asker{name: h.Name}
	var err error
	nettest.OpenNamespace(b, fmt.Sprintf("/proc/%d/ns/net", h.PID())).Do(func() {
		a.conn, err = net.Dial("udp", net.JoinHostPort(hostconfig.DNSAddress, "53"))
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = a.conn.Close() })
	return a
}

// answered waits until a name is answered with an address, or with any if want
// is the zero value, and says when that was.
func (a *asker) answered(name string, want netip.Addr) (time.Time, error) {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		found, err := a.ask(name)
		at := time.Now()
		if err == nil && len(found) > 0 && (!want.IsValid() || found[0] == want) {
			return at, nil
		}
		<-time.After(500 * time.Microsecond)
	}
	return time.Time{}, fmt.Errorf("%s does not answer %s with %s", a.name, name, want)
}

// ask puts one question; what is lost on the way is an error.
func (a *asker) ask(name string) ([]netip.Addr, error) {
	m := new(dns.Msg)
	m.SetQuestion(name+".", dns.TypeA)
	q, err := m.Pack()
	id := m.Id
	if err == nil {
		err = a.conn.SetDeadline(time.Now().Add(100 * time.Millisecond))
	}
	if err == nil {
		_, err = a.conn.Write(q)
	}
	if err != nil {
		return nil, err
	}
	reply := make([]byte, 4096)
	n, err := a.conn.Read(reply)
	if err == nil {
		err = m.Unpack(reply[:n])
	}
	if err == nil && m.Id != id {
		err = errors.New("an answer that came late")
	}
	if err != nil {
		return nil, err
	}
	var found []netip.Addr
	for _, r := range m.Answer {
		if a, ok := r.(*dns.A); ok {
			if addr, ok := netip.AddrFromSlice(a.A.To4()); ok {
				found = append(found, addr)
			}
		}
	}
	return found, nil
}

// denied waits until a name is not answered any more.
func (a *asker) denied(name string) error {
	for end := time.Now().Add(10 * time.Second); ; {
		found, err := a.ask(name)
		if err == nil && len(found) == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s still answers %s: %v", a.name, name, found)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// last is when the slowest of some hosts answered.
func last(b *testing.B, askers []*asker, name string, want netip.Addr) time.Time {
	b.Helper()
	type answer struct {
		at  time.Time
		err error
	}
	answers := make(chan answer, len(askers))
	for _, a := range askers {
		go func() {
			at, err := a.answered(name, want)
			answers <- answer{at, err}
		}()
	}
	var at time.Time
	for range askers {
		got := <-answers
		if got.err != nil {
			b.Fatal(got.err)
		}
		if got.at.After(at) {
			at = got.at
		}
	}
	return at
}

func percentiles(b *testing.B, took []time.Duration) {
	b.Helper()
	slices.Sort(took)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}

// BenchmarkNamesAppear measures, in a fleet with a thousand names on three
// hosts, the time until the last host answers a name: from its being written
// to etcd, and from the engine's event that its container has started.
func BenchmarkNamesAppear(b *testing.B) {
	f := shared
	etcd := f.etcd(b)
	prefix := "/clocker/" + f.name + "/net/names/"
	put := func(key string, r record.NameRecord) {
		b.Helper()
		v, err := json.Marshal(r)
		if err == nil {
			_, err = etcd.Put(b.Context(), prefix+key, string(v))
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	b.Cleanup(func() { _, _ = etcd.Delete(context.Background(), prefix+"nobody/", clientv3.WithPrefix()) })
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 222, byte(i >> 8), byte(i)}) }
	name := func(i int, service string) record.NameRecord {
		return record.NameRecord{App: "crowd", Service: service, Replica: fmt.Sprint("crowd-", i),
			Networks: map[string]record.NamedAddress{"crowd": {Address: at(i).String()}}}
	}
	for i := range 1000 {
		put(fmt.Sprint("nobody/", i), name(i, fmt.Sprint("s", i/3)))
	}
	var askers []*asker
	for _, h := range f.bed.Hosts() {
		askers = append(askers, newAsker(b, h))
	}
	last(b, askers, "s333.crowd", at(999))

	b.Run("from publication", func(b *testing.B) {
		took := make([]time.Duration, 0, b.N)
		for i := 0; b.Loop(); i++ {
			want := at(2000 + i%20000)
			start := time.Now()
			put("nobody/new", record.NameRecord{App: "crowd", Service: "new", Replica: "crowd-new",
				Networks: map[string]record.NamedAddress{"crowd": {Address: want.String()}}})
			took = append(took, last(b, askers, "new.crowd", want).Sub(start))
		}
		percentiles(b, took)
	})
	b.Run("from start", func(b *testing.B) {
		const file = "services: {web: {image: 'clocker.io/test/web:1'}}"
		path := filepath.Join(b.TempDir(), "compose.yaml")
		err := os.WriteFile(path, []byte(file), 0o600)
		if err == nil {
			err = f.command(b.Context(), "clocker", "deploy", path, "--app", "one", "--wait").err()
		}
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = f.command(context.Background(), "clocker", "rm", "one") })
		var h *testbed.Host
		for _, host := range f.bed.Hosts() {
			if _, err := host.Exec(b.Context(), "docker", "inspect", "one-web-1"); err == nil {
				h = host
			}
		}
		took := make([]time.Duration, 0, b.N)
		for b.Loop() {
			if _, err := h.Exec(b.Context(), "docker", "kill", "one-web-1"); err != nil {
				b.Fatal(err)
			}
			for _, a := range askers {
				if err := a.denied("tasks.web.one"); err != nil {
					b.Fatal(err)
				}
			}
			appeared := make(chan time.Time, 1)
			go func() { appeared <- last(b, askers, "tasks.web.one", netip.Addr{}) }()
			if _, err := h.Exec(b.Context(), "docker", "start", "one-web-1"); err != nil {
				b.Fatal(err)
			}
			// The engine's own word for when it had started the process.
			said, err := h.Exec(b.Context(), "docker", "inspect", "-f", "{{.State.StartedAt}}", "one-web-1")
			if err != nil {
				b.Fatal(err)
			}
			started, err := time.Parse(time.RFC3339Nano, strings.TrimSpace(said))
			if err != nil {
				b.Fatal(err)
			}
			took = append(took, (<-appeared).Sub(started))
		}
		percentiles(b, took)
	})
}
