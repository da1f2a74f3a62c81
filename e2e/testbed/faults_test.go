package testbed

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

func partitionOfTwo(s scene) {
	if err := s.bed.Partition("h1", "h2"); err != nil {
		s.t.Fatal(err)
	}
	if s.pings("h1", "h2") || s.pings("h2", "h1") {
		s.t.Error("traffic passes a partition")
	}
	s.redisAnswers("h1") // from here: only the two are apart
	if err := s.bed.Heal(); err != nil {
		s.t.Fatal(err)
	}
	if !s.pings("h1", "h2") || !s.pings("h2", "h1") {
		s.t.Error("no traffic after heal")
	}
}

func partitionFromHubAndMachine(s scene) {
	if err := s.bed.Partition("h1", hubName); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.bed.Host("h1").Exec(s.ctx, "ping", "-c", "1", "-W", "1", s.bed.hub.String()); err == nil {
		s.t.Error("h1 reaches the hub it is cut off from")
	}
	if !s.pings("h1", "h2") {
		s.t.Error("h1 cut off from the hub does not reach h2")
	}
	s.redisAnswers("h1")
	if err := s.bed.Partition(machineName, "h1"); err != nil {
		s.t.Fatal(err)
	}
	if got, err := s.redisSays("h1", "PING"); err == nil {
		s.t.Errorf("redis of a host cut off from here says %q", got)
	}
	if err := s.bed.Heal(); err != nil {
		s.t.Fatal(err)
	}
	s.redisAnswers("h1")
	for _, wrong := range [][2]string{{"h1", "h1"}, {"h1", "h9"}, {"", "h1"}, {hubName, ""}} {
		if err := s.bed.Partition(wrong[0], wrong[1]); err == nil {
			s.t.Errorf("partition %q is accepted", wrong)
		}
	}
}

func pulledCable(s scene) {
	if err := s.bed.Partition("h1", ""); err != nil {
		s.t.Fatal(err)
	}
	if got := s.on("h1", "cat", "/sys/class/net/eth0/carrier"); got != "0" {
		s.t.Errorf("carrier is %q", got)
	}
	if s.pings("h2", "h1") {
		s.t.Error("a host with its cable pulled answers")
	}
	// Over a restart too.
	if err := s.bed.Host("h1").Restart(s.ctx); err != nil {
		s.t.Fatal(err)
	}
	if s.pings("h2", "h1") {
		s.t.Error("a host with its cable pulled answers after a restart")
	}
	if err := s.bed.Heal(); err != nil {
		s.t.Fatal(err)
	}
	s.eventually("h1 to answer", func() error {
		if !s.pings("h2", "h1") {
			return fmt.Errorf("no ping")
		}
		return nil
	})
}

func hostRestarts(s scene) {
	h := s.bed.Host("h2")
	s.on("h2", "sh", "-c", "echo kept > /var/lib/clocker/file; echo kept > /etc/file; echo lost > /run/file; docker run -d --name gone busybox sleep 10000")
	if err := h.Kill(); err != nil {
		s.t.Fatal(err)
	}
	if h.Running() || s.pings("h1", "h2") {
		s.t.Error("a killed host is still there")
	}
	s.eventually("h2's processes to be reaped", func() error {
		if left := leftProcesses(s.bed.Name(), "h2"); len(left) > 0 {
			return fmt.Errorf("left: %v", left)
		}
		return nil
	})
	if _, err := h.Exec(s.ctx, "true"); err == nil {
		s.t.Error("a killed host runs commands")
	}
	if err := h.Restart(s.ctx); err != nil {
		s.t.Fatal(err)
	}
	s.redisAnswers("h2")
	got := s.on("h2", "sh", "-c", "cat /var/lib/clocker/file /etc/file; ls /run/file 2>&1 | tail -c 10; docker inspect -f '{{.State.Running}}' gone")
	if want := "kept\nkept\ndirectory\nfalse"; got != want && got != strings.Replace(want, "directory", "irectory", 1) {
		s.t.Errorf("after the restart: %q", got)
	}
	if got := s.on("h2", "docker", "inspect", "-f", "{{.RestartCount}} {{.State.Running}}", "redis"); !strings.HasSuffix(got, "true") {
		s.t.Errorf("redis: %q", got)
	}
}

func leftProcesses(bed, host string) []string {
	return slices.DeleteFunc(leftovers(bed), func(l string) bool {
		b, _ := os.ReadFile(strings.TrimPrefix(l, "process "))
		return !strings.Contains(string(b), cgroupPath(bed, host)+"/")
	})
}
