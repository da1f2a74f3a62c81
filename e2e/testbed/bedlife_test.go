package testbed

import (
	"context"
	"os"
	"path/filepath"
	"strings"
)

func etcdCluster(s scene) {
	e, err := s.bed.Etcd(s.ctx, 3)
	if err != nil {
		s.t.Fatal(err)
	}
	ctl := func(member int, args ...string) string {
		s.t.Helper()
		cmd, err := toolCommand(toolsTree.path(), "usr/bin/etcdctl", append([]string{"--endpoints", e.Endpoints()[member]}, args...)...)
		if err != nil {
			s.t.Fatal(err)
		}
		cmd.Env = append(os.Environ(), "ETCDCTL_API=3")
		out, err := cmd.CombinedOutput()
		if err != nil {
			s.t.Fatalf("etcdctl %v: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	ctl(0, "put", "key", "one")
	if err := e.Kill(0); err != nil {
		s.t.Fatal(err)
	}
	s.eventually("two of three to go on", func() error {
		return e.waitMember(s.ctx, 1)
	})
	ctl(1, "put", "key", "two")
	if err := e.Restart(s.ctx, 0); err != nil {
		s.t.Fatal(err)
	}
	if got := ctl(0, "get", "key", "--print-value-only"); got != "two" {
		s.t.Errorf("the member that came back has %q", got)
	}
	if _, err := s.bed.Etcd(s.ctx, 1); err == nil {
		s.t.Error("a second cluster started beside the first")
	}
	if err := e.Stop(); err != nil {
		s.t.Fatal(err)
	}
}

func upConverges(s scene) {
	h1, h2 := s.bed.Host("h1"), s.bed.Host("h2")
	if err := h2.Kill(); err != nil {
		s.t.Fatal(err)
	}
	before := h1.PID()
	o := s.options
	o.Hosts = 3
	bed, err := Up(s.ctx, o)
	if err != nil {
		s.t.Fatal(err)
	}
	if h1.PID() != before || !h2.Running() || bed.Host("h3") == nil {
		s.t.Error("up did not keep h1, start h2 and add h3")
	}
	if _, err := bed.Host("h1").Exec(s.ctx, "ping", "-c1", "-W1", "h3"); err != nil {
		s.t.Error(err)
	}
	if bed, err = Up(s.ctx, s.options); err != nil || bed.Host("h3") != nil {
		s.t.Errorf("up with fewer hosts: %v", err)
	}
	if got, err := Open(s.bed.Name()); err != nil || len(got.Hosts()) != 2 {
		s.t.Errorf("open: %v", err)
	}
}

func upClearsLeftovers(s scene) {
	before := s.bed.Host("h1").PID()
	// As if an Up had died before it wrote anything down.
	if err := os.Remove(filepath.Join(s.bed.Dir(), "state.json")); err != nil {
		s.t.Fatal(err)
	}
	bed, err := Up(s.ctx, s.options)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, start, err := procStat(before); err == nil {
		s.t.Errorf("the former h1 is still there, started at %d", start)
	}
	if !bed.Host("h2").Running() {
		s.t.Error("h2 is down")
	}
}

func downLeavesNothing(s scene) {
	name := s.bed.Name()
	if len(leftovers(name)) < 3 {
		s.t.Errorf("cannot see a running testbed: %v", leftovers(name))
	}
	for range 2 { // the second finds nothing, which is no error
		if err := Down(context.Background(), name); err != nil {
			s.t.Fatal(err)
		}
	}
	if left := leftovers(name); len(left) > 0 {
		s.t.Errorf("left over: %v", left)
	}
}
