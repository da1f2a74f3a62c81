package netbench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Figures are what one measure found, by name; see examples/images/netbench.
type Figures map[string]float64

// Place is a network namespace that traffic comes from or goes to. The program
// runs in that namespace only: it has no part in the limits and system call
// filters of the container whose namespace it is, so that a container differs
// from its host by the network alone.
type Place struct {
	// Namespace is the path of the namespace's file.
	Namespace string
	// Address is where others reach the place.
	Address string
	// Port is where a server is there, Port of this package if empty.
	Port string
}

func (p Place) port() string {
	if p.Port == "" {
		return Port
	}
	return p.Port
}

// Program is the measuring program.
type Program struct{ path string }

// Build compiles the program into a directory. It must be called within the
// module.
func Build(ctx context.Context, dir string) (Program, error) {
	p := Program{filepath.Join(dir, "netbench")}
	c := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", p.path, "clocker.io/clocker/examples/images/netbench")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return p, fmt.Errorf("build netbench: %w: %s", err, out)
	}
	return p, nil
}

// Port is where servers of the benches listen.
const Port = "7100"

// command runs the program at a place, on one processor or, with cpu < 0, on
// any. It runs before whatever else the machine does, so that others cost it
// little; what it measures is short.
func (p Program) command(ctx context.Context, at Place, cpu int, port string, args ...string) *exec.Cmd {
	line := []string{"--fifo", "1", "nsenter", "--net=" + at.Namespace}
	if cpu >= 0 {
		line = append(line, "taskset", "-c", fmt.Sprint(cpu))
	}
	line = append(append(line, p.path), args...)
	c := exec.CommandContext(ctx, "chrt", append(line, "--port", port)...)
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = 5 * time.Second
	return c
}

// Measure runs a measure at a place against the server at another; args are
// the measure's name and flags.
func (p Program) Measure(ctx context.Context, from, to Place, cpu int, measure string, flags ...string) (Figures, error) {
	c := p.command(ctx, from, cpu, to.port(), append([]string{measure, to.Address}, flags...)...)
	var out, errOut bytes.Buffer
	c.Stdout, c.Stderr = &out, &errOut
	if err := c.Run(); err != nil {
		return nil, fmt.Errorf("measure %s to %s: %w: %s", measure, to.Address, err, errOut.String())
	}
	var f Figures
	if err := json.Unmarshal(out.Bytes(), &f); err != nil {
		return nil, fmt.Errorf("read figures: %w", err)
	}
	return f, nil
}

// Running is a program in the background.
type Running struct {
	cmd      *exec.Cmd
	out, err bytes.Buffer
}

// Serve starts a server at a place.
func (p Program) Serve(ctx context.Context, at Place, cpu int) (*Running, error) {
	return p.start(ctx, at, cpu, at.port(), "serve", "--address", at.Address)
}

func (p Program) start(ctx context.Context, at Place, cpu int, port string, args ...string) (*Running, error) {
	r := &Running{cmd: p.command(ctx, at, cpu, port, args...)}
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.err
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start netbench: %w", err)
	}
	return r, nil
}

// Ping starts pinging one place from another, until it is stopped.
func (p Program) Ping(ctx context.Context, from, to Place, interval time.Duration) (*Running, error) {
	return p.start(ctx, from, -1, to.port(), "ping", to.Address, "--for", "0", "--interval", interval.String())
}

// Stop ends the program and returns its figures.
func (r *Running) Stop() (Figures, error) {
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return nil, fmt.Errorf("stop netbench: %w: %s", err, r.err.String())
	}
	if err := r.cmd.Wait(); err != nil {
		return nil, fmt.Errorf("stop netbench: %w: %s", err, r.err.String())
	}
	var f Figures
	if err := json.Unmarshal(r.out.Bytes(), &f); err != nil {
		return nil, fmt.Errorf("read figures: %w", err)
	}
	return f, nil
}
