package testbed

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

var engines = flag.String("engines", "28,20", "engines to test, by major version")

// TestTestbed brings up two hosts of each engine and holds them to what this
// package promises. It needs root and fails without.
func TestTestbed(t *testing.T) {
	for _, engine := range strings.Split(*engines, ",") {
		t.Run(engine, func(t *testing.T) {
			name := fmt.Sprintf("self%s-%d", engine, os.Getpid())
			ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
			defer cancel()
			o := Options{Name: name, Hosts: 2, Engine: engine, Log: t.Logf}
			t.Cleanup(func() {
				if err := Down(context.Background(), name); err != nil {
					t.Errorf("down: %v", err)
				}
			})
			bed, err := Up(ctx, o)
			if err != nil {
				t.Fatal(err)
			}
			s := scene{t: t, ctx: ctx, bed: bed, options: o}
			t.Run("engine version", s.with(engineVersion))
			t.Run("exec tells failure", s.with(execTellsFailure))
			t.Run("ssh", s.with(sshLogin))
			t.Run("unknown image fails at once", s.with(unknownImage))
			t.Run("redis on both hosts", s.with(redisOnBoth))
			t.Run("identidock", s.with(identidock))
			t.Run("limits", s.with(limits))
			t.Run("managed plugin", s.with(managedPlugin))
			t.Run("pushed program", s.with(pushedProgram))
			t.Run("partition of two", s.with(partitionOfTwo))
			t.Run("partition from hub and machine", s.with(partitionFromHubAndMachine))
			t.Run("pulled cable", s.with(pulledCable))
			t.Run("host restarts", s.with(hostRestarts))
			t.Run("engine is supervised", s.with(engineSupervised))
			t.Run("etcd", s.with(etcdCluster))
			t.Run("up converges", s.with(upConverges))
			t.Run("up clears leftovers", s.with(upClearsLeftovers))
			t.Run("down leaves nothing", s.with(downLeavesNothing))
		})
	}
}

// scene is what every obligation is tested on.
type scene struct {
	t       *testing.T
	ctx     context.Context
	bed     *Testbed
	options Options
}

func (s scene) with(f func(scene)) func(*testing.T) {
	return func(t *testing.T) {
		s.t = t
		f(s)
	}
}

// on runs a command on a host, which must succeed.
func (s scene) on(host string, args ...string) string {
	s.t.Helper()
	out, err := s.bed.Host(host).Exec(s.ctx, args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// eventually waits for f to stop failing.
func (s scene) eventually(what string, f func() error) {
	s.t.Helper()
	if err := poll(s.ctx.Done(), 30*time.Second, what, f); err != nil {
		s.t.Fatal(err)
	}
}

// redisSays talks to the redis published on a host's port 6379.
func (s scene) redisSays(host, command string) (string, error) {
	c, err := net.DialTimeout("tcp", s.bed.Host(host).Address+":6379", time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(c, "%s\r\n", command); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}

func (s scene) redisAnswers(host string) {
	s.t.Helper()
	s.eventually("redis on "+host, func() error {
		got, err := s.redisSays(host, "PING")
		if err == nil && got != "+PONG" {
			err = fmt.Errorf("redis says %q", got)
		}
		return err
	})
}

func (s scene) pings(from, to string) bool {
	_, err := s.bed.Host(from).Exec(s.ctx, "ping", "-c", "1", "-W", "1", s.bed.Host(to).Address)
	return err == nil
}

func engineVersion(s scene) {
	for _, h := range s.bed.Hosts() {
		c, err := h.Client()
		if err != nil {
			s.t.Fatal(err)
		}
		v, err := c.ServerVersion(s.ctx, client.ServerVersionOptions{})
		if err != nil {
			s.t.Fatal(err)
		}
		if !strings.HasPrefix(v.Version, s.options.Engine+".") {
			s.t.Errorf("%s has engine %s", h.Name, v.Version)
		}
		if err := c.Close(); err != nil {
			s.t.Error(err)
		}
	}
	if got := s.on("h2", "docker", "info", "--format", "{{.Driver}} {{.Name}}"); got != "overlay2 h2" {
		s.t.Errorf("storage driver and name are %q", got)
	}
}

func execTellsFailure(s scene) {
	out, err := s.bed.Host("h1").Exec(s.ctx, "sh", "-c", "echo out; echo oops >&2; exit 7")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 || !strings.Contains(err.Error(), "oops") || out != "out\n" {
		s.t.Errorf("printed %q, error %v", out, err)
	}
}

func sshLogin(s scene) {
	addr, keyFile, known := s.bed.Host("h2").SSH()
	pem, err := os.ReadFile(keyFile)
	if err != nil {
		s.t.Fatal(err)
	}
	key, err := ssh.ParsePrivateKey(pem)
	if err != nil {
		s.t.Fatal(err)
	}
	check, err := knownhosts.New(known)
	if err != nil {
		s.t.Fatal(err)
	}
	c, err := ssh.Dial("tcp", addr, &ssh.ClientConfig{
		User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: check,
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519}, Timeout: 10 * time.Second,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	session, err := c.NewSession()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := session.CombinedOutput("hostname; docker version --format '{{.Server.Os}}'")
	if err != nil || string(out) != "h2\nlinux\n" {
		s.t.Errorf("over ssh: %v: %q", err, out)
	}
}

// leftovers lists what carries the testbed's name and would outlive it.
func leftovers(name string) []string {
	var found []string
	links, _ := net.Interfaces()
	for _, l := range links {
		if l.Name == linkName(name) {
			found = append(found, "link "+l.Name)
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, stateDir(name)+"/") {
			found = append(found, "mount "+line)
		}
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + cgroupPath(name, ""))
	found = append(found, groups...)
	procs, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, p := range procs {
		b, _ := os.ReadFile(p)
		if strings.Contains(string(b), "/"+cgroupPath(name, "")+"/") {
			found = append(found, "process "+p)
		}
	}
	files, _ := filepath.Glob(stateDir(name) + "*")
	return append(found, files...)
}
