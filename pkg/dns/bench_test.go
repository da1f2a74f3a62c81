package dns

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// TestMain is also the servers that BenchmarkServer measures: each in a process
// of its own, so that its time can be told from the client's.
func TestMain(m *testing.M) {
	kind := os.Getenv("DNS_TEST_SERVER")
	if kind == "" {
		os.Exit(m.Run())
	}
	port, err := strconv.Atoi(os.Getenv("DNS_TEST_PORT"))
	if err != nil {
		panic(err)
	}
	serveForBench(kind, port)
}

func rawOf(key string, v any) store.Raw {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return store.Raw{Key: key, Value: b}
}

// serveForBench serves until it is told to end.
func serveForBench(kind string, port int) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	switch kind {
	case "clocker":
		x := NewIndex(quiet)
		x.ApplyNetworks(store.Change{Reset: true, Puts: []store.Raw{rawOf("lo", record.Network{ID: "lo", Subnet: "127.0.0.0/8"})}})
		var c store.Change
		for i := range 1000 {
			c.Puts = append(c.Puts, rawOf(fmt.Sprint("names/h/", i), record.NameRecord{
				App: "shop", Service: fmt.Sprint("web", i/3), Replica: fmt.Sprint("shop-web", i/3, "-", i%3),
				Networks: map[string]record.NamedAddress{"lo": {Address: fmt.Sprintf("10.208.%d.%d", i>>8, i&255)}},
			}))
		}
		x.ApplyNames(c)
		x.rebuild()
		(&Server{Address: "127.0.0.1", Port: port, Handler: &Handler{Index: x, Intn: rand.IntN}, Log: quiet}).Run(ctx)
	case "miekg":
		srv := &dns.Server{Addr: fmt.Sprintf("127.0.0.1:%d", port), Net: "udp", Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
			m := new(dns.Msg)
			m.SetReply(r)
			for i := range 3 {
				m.Answer = append(m.Answer, &dns.A{Hdr: header(r.Question[0].Name, dns.TypeA), A: net.IPv4(10, 208, 0, byte(i))})
			}
			_ = w.WriteMsg(m)
		})}
		go func() { _ = srv.ListenAndServe() }()
		<-ctx.Done()
		_ = srv.Shutdown()
	}
}

// BenchmarkServer measures servers by real sockets: each runs in a process of
// its own on one core (GOMAXPROCS=1). What it reports is per second of the
// server's processor time, as the client takes its share of the machine too;
// "miekg" is a server that answers everything with three constant addresses.
func BenchmarkServer(b *testing.B) {
	rates := map[string]float64{}
	for _, kind := range []string{"miekg", "clocker"} {
		b.Run(kind, func(b *testing.B) {
			s := startServer(b, kind)
			c := s.dial(b)
			queries := make([][]byte, 300)
			for i := range queries {
				m := new(dns.Msg)
				m.SetQuestion(fmt.Sprintf("web%d.", i), dns.TypeA)
				m.SetEdns0(1232, false)
				var err error
				queries[i], err = m.Pack()
				assert.NilError(b, err)
			}
			took := make([]time.Duration, 0, b.N)
			before := s.cpu(b)
			const window = 32
			reply := make([]byte, maxUDP)
			for i := 0; b.Loop(); i++ {
				// As many as window questions are on the way at once.
				if i%window == 0 {
					for j := range window {
						_, err := c.Write(queries[(i+j)%len(queries)])
						assert.NilError(b, err)
					}
				}
				_, err := c.Read(reply)
				assert.NilError(b, err)
			}
			used := s.cpu(b) - before
			rate := float64(b.N) / used.Seconds()
			rates[kind] = max(rates[kind], rate)
			b.ReportMetric(rate, "queries/cpu-s")
			for i := range min(b.N, 20000) {
				start := time.Now()
				_, err := c.Write(queries[i%len(queries)])
				assert.NilError(b, err)
				_, err = c.Read(reply)
				assert.NilError(b, err)
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
			if base := rates["miekg"]; kind == "clocker" && base > 0 {
				b.ReportMetric(rate/base, "x-miekg")
			}
		})
	}
}

type benchServer struct {
	cmd  *exec.Cmd
	port int
}

func startServer(b *testing.B, kind string) *benchServer {
	b.Helper()
	s := &benchServer{port: freePort(b)}
	exe, err := os.Executable()
	assert.NilError(b, err)
	s.cmd = exec.Command(exe)
	s.cmd.Env = append(os.Environ(), "DNS_TEST_SERVER="+kind, fmt.Sprint("DNS_TEST_PORT=", s.port), "GOMAXPROCS=1")
	assert.NilError(b, s.cmd.Start())
	b.Cleanup(func() {
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
		_ = s.cmd.Wait()
	})
	m := new(dns.Msg)
	m.SetQuestion("web1.", dns.TypeA)
	for end := time.Now().Add(10 * time.Second); ; {
		if _, err := dns.Exchange(m, fmt.Sprintf("127.0.0.1:%d", s.port)); err == nil {
			return s
		}
		assert.Assert(b, time.Now().Before(end), "server %s does not answer", kind)
	}
}

func (s *benchServer) dial(b *testing.B) *net.UDPConn {
	b.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(s.port))))
	assert.NilError(b, err)
	assert.NilError(b, c.SetDeadline(time.Now().Add(2*time.Minute)))
	b.Cleanup(func() { _ = c.Close() })
	return c
}

// cpu is the processor time that the server has used.
func (s *benchServer) cpu(b *testing.B) time.Duration {
	b.Helper()
	var t unix.Timespec
	// The clock of a process's own time (clock_getcpuclockid(3)).
	assert.NilError(b, unix.ClockGettime(int32(^s.cmd.Process.Pid<<3|2), &t))
	return time.Duration(t.Nano())
}
