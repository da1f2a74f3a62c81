package testbed

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// service is one program a machine's init keeps going.
type service struct {
	Name string   `json:"name"`
	Args []string `json:"args"`
	Env  []string `json:"env,omitempty"`
	// As is argv[0] where it is not Args[0].
	As string `json:"as,omitempty"`
	// After is a unix socket that must accept before the service starts.
	After string `json:"after,omitempty"`
}

const (
	restartPause = 100 * time.Millisecond
	stopPatience = 25 * time.Second
	socketPause  = 5 * time.Millisecond
)

// running is a service with what init knows about it. Only the loop of
// supervise touches it.
type running struct {
	service
	pid     int
	want    bool
	due     time.Time // when to start it again
	mustEnd time.Time // when to stop asking and kill it; zero unless stopping
	gone    []chan<- string

	forgotten bool // not to be kept once it has ended
}

// supervise is the main loop of a machine's process 1: it starts services,
// starts those again that end, reaps whatever is left to it, and takes orders
// (control.go). One goroutine forks and reaps, so that no end is missed.
func supervise(services []service) error {
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGPIPE)
	orders, err := listenOrders()
	if err != nil {
		return err
	}
	s := &supervisor{byName: map[string]*running{}}
	for _, spec := range services {
		s.add(spec)
	}
	for {
		next := s.startDue(time.Now())
		timer := time.NewTimer(next)
		select {
		case <-children:
			s.reap()
		case o := <-orders:
			s.obey(o)
		case <-timer.C:
		}
		timer.Stop()
	}
}

type supervisor struct {
	all    []*running
	byName map[string]*running
}

func (s *supervisor) add(spec service) {
	if r, ok := s.byName[spec.Name]; ok {
		r.service, r.want = spec, true
		return
	}
	r := &running{service: spec, want: true}
	s.all = append(s.all, r)
	s.byName[spec.Name] = r
}

// startDue starts what is wanted and not running, kills what will not stop,
// and says when to look again.
func (s *supervisor) startDue(now time.Time) time.Duration {
	next := time.Minute
	for _, r := range s.all {
		wait := time.Minute
		switch {
		case r.pid != 0 && !r.mustEnd.IsZero():
			if wait = r.mustEnd.Sub(now); wait <= 0 {
				_ = unix.Kill(r.pid, unix.SIGKILL)
				wait = time.Second
			}
		case r.pid == 0 && r.want && now.Before(r.due):
			wait = r.due.Sub(now)
		case r.pid == 0 && r.want && r.After != "" && !accepts(r.After):
			wait = socketPause
		case r.pid == 0 && r.want:
			pid, err := r.start()
			if err != nil {
				fmt.Fprintf(os.Stderr, "start %s: %v\n", r.Name, err)
				r.due = now.Add(time.Second)
				wait = time.Second
			}
			r.pid = pid
		}
		next = min(next, wait)
	}
	return next
}

func (r *running) start() (int, error) {
	logPath := filepath.Join("/var/log", r.Name+".log")
	out, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	in, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	path, err := findProgram(r.Args[0])
	if err != nil {
		return 0, err
	}
	args := append([]string{r.Args[0]}, r.Args[1:]...)
	if r.As != "" {
		args[0] = r.As
	}
	return syscall.ForkExec(path, args, &syscall.ProcAttr{
		Dir:   "/",
		Env:   append(machineEnv(), r.Env...),
		Files: []uintptr{in.Fd(), out.Fd(), out.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
}

func findProgram(name string) (string, error) {
	if filepath.IsAbs(name) {
		return name, nil
	}
	for _, d := range []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		p := filepath.Join(d, name)
		if unix.Access(p, unix.X_OK) == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("find %s: %w", name, os.ErrNotExist)
}

func (s *supervisor) reap() {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		for _, r := range s.all {
			if r.pid != pid {
				continue
			}
			fmt.Fprintf(os.Stderr, "%s %s ended: status %d signal %v\n",
				time.Now().Format(time.RFC3339Nano), r.Name, status.ExitStatus(), status.Signal())
			r.pid, r.mustEnd, r.due = 0, time.Time{}, time.Now().Add(restartPause)
			for _, g := range r.gone {
				g <- "ok"
			}
			r.gone = nil
		}
		s.sweep()
	}
}

func accepts(socket string) bool {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return false
	}
	c.Close()
	return true
}
