package testbed

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestTwoLinks holds a testbed with a router between its hosts to what is
// promised of it. It needs root and fails without.
func TestTwoLinks(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	o := Options{Name: fmt.Sprintf("links-%d", os.Getpid()), Hosts: 3, Links: 2, Log: t.Logf}
	t.Cleanup(func() {
		if err := Down(context.Background(), o.Name); err != nil {
			t.Errorf("down: %v", err)
		}
	})
	bed, err := Up(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	s := scene{t: t, ctx: ctx, bed: bed, options: o}
	t.Run("hosts reach each other", s.with(acrossTheRouter))
	t.Run("images and names", s.with(func(s scene) { s.on("h2", "docker", "pull", "-q", "busybox") }))
	t.Run("partition across the router", s.with(partitionAcross))
	t.Run("MTU", s.with(changedMTU))
	t.Run("live-restore", s.with(keepsContainers))
}

func (s scene) hops(from, to string) int {
	s.t.Helper()
	out := s.on(from, "ping", "-c", "1", "-W", "1", to)
	_, ttl, ok := strings.Cut(out, "ttl=")
	var n int
	if _, err := fmt.Sscan(ttl, &n); !ok || err != nil {
		s.t.Fatalf("ping of %s printed %q", to, out)
	}
	return 64 - n
}

func acrossTheRouter(s scene) {
	for _, c := range []struct {
		from, to string
		hops     int
	}{{"h1", "h3", 0}, {"h1", "h2", 1}, {"h2", "h3", 1}} {
		h := s.bed.Host(c.to)
		for _, a := range []string{h.Name, h.Address, h.Address6} {
			if got := s.hops(c.from, a); got != c.hops {
				s.t.Errorf("%s is %d routers from %s, not %d", a, got, c.from, c.hops)
			}
		}
	}
	// Link-local addresses are of one link.
	s.on("h1", "ping", "-c", "1", "-W", "1", s.bed.Host("h3").LinkLocal6+"%eth0")
	if _, err := s.bed.Host("h1").Exec(s.ctx, "ping", "-c", "1", "-W", "1", s.bed.Host("h2").LinkLocal6+"%eth0"); err == nil {
		s.t.Error("a link-local address of the other link answers")
	}
	if got := len(s.bed.Subnets()); got != 2 {
		s.t.Errorf("%d subnets", got)
	}
}

func partitionAcross(s scene) {
	if err := s.bed.Partition("h1", "h2"); err != nil {
		s.t.Fatal(err)
	}
	if s.pings("h1", "h2") || s.pings("h2", "h1") {
		s.t.Error("packets pass between h1 and h2")
	}
	if _, err := s.bed.Host("h1").Exec(s.ctx, "ping", "-c", "1", "-W", "1", s.bed.Host("h2").Address6); err == nil {
		s.t.Error("IPv6 packets pass between h1 and h2")
	}
	if !s.pings("h3", "h2") || !s.pings("h1", "h3") {
		s.t.Error("others are cut off too")
	}
	if err := s.bed.Heal(); err != nil {
		s.t.Fatal(err)
	}
	if !s.pings("h1", "h2") {
		s.t.Error("healed, and still cut off")
	}
}

func changedMTU(s scene) {
	h1 := s.bed.Host("h1")
	large := []string{"ping", "-c", "1", "-W", "1", "-M", "do", "-s", "1400", s.bed.Host("h3").Address}
	if err := h1.SetMTU(1300); err != nil {
		s.t.Fatal(err)
	}
	if _, err := h1.Exec(s.ctx, large...); err == nil {
		s.t.Error("a packet larger than the MTU gets through")
	}
	if err := h1.Restart(s.ctx); err != nil {
		s.t.Fatal(err)
	}
	if got := s.on("h1", "cat", "/sys/class/net/eth0/mtu"); got != "1300" {
		s.t.Errorf("after a restart the MTU is %s", got)
	}
	if err := h1.SetMTU(0); err != nil {
		s.t.Fatal(err)
	}
	s.on("h1", large...)
}

func keepsContainers(s scene) {
	h := s.bed.Host("h2")
	if err := h.KeepContainers(s.ctx, true); err != nil {
		s.t.Fatal(err)
	}
	s.on("h2", "docker", "run", "-d", "busybox", "sleep", "1000")
	before := h.Pids("sleep")
	if err := h.KillEngine(s.ctx); err != nil {
		s.t.Fatal(err)
	}
	if err := h.WaitReady(s.ctx); err != nil {
		s.t.Fatal(err)
	}
	if after := h.Pids("sleep"); len(before) != 1 || len(after) != 1 || before[0] != after[0] {
		s.t.Errorf("the container ran as %v, now as %v", before, after)
	}
}
