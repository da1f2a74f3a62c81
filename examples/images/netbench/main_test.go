package main

import (
	"context"
	"net"
	"testing"
	"time"
)

// freePort is one that nobody listens on now.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Every measure works over loopback and gives figures that can be true.
func TestMeasures(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	o := options{address: "127.0.0.1", port: freePort(t), streams: 2, size: 64, length: 50 * time.Millisecond, interval: time.Millisecond}
	served := make(chan error, 1)
	go func() {
		_, err := serve(ctx, o)
		served <- err
	}()
	for end := time.Now().Add(5 * time.Second); ; {
		c, err := ask(ctx, o, askCount)
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	for name, figure := range map[string]string{"tcp": "bits_per_second", "rtt": "p50", "packets": "per_second", "connect": "per_second", "ping": "sent"} {
		t.Run(name, func(t *testing.T) {
			f, err := measures[name](ctx, o)
			if err != nil {
				t.Fatal(err)
			}
			if f[figure] <= 0 {
				t.Errorf("figures are %v", f)
			}
			if name == "ping" && f["lost"] != 0 {
				t.Errorf("lost on loopback: %v", f)
			}
		})
	}
	o.protocol = "udp"
	if f, err := roundTrips(ctx, o); err != nil || f["p99"] < f["p50"] {
		t.Errorf("figures are %v, error %v", f, err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// A server that is away counts as loss, not as an error.
func TestPingOfNobody(t *testing.T) {
	f, err := ping(t.Context(), options{address: "127.0.0.1", port: freePort(t), length: 100 * time.Millisecond, interval: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if f["lost"] != f["sent"] || f["longest_gap_ms"] < 80 {
		t.Errorf("figures are %v", f)
	}
}

func TestPercentiles(t *testing.T) {
	f := percentiles([]time.Duration{3 * time.Millisecond, time.Millisecond, 2 * time.Millisecond})
	if f["p50"] != 2000 || f["p99"] != 3000 || f["max"] != 3000 {
		t.Errorf("figures are %v", f)
	}
}
