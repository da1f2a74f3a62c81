package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"clocker.io/clocker/pkg/engine/connect"
	"clocker.io/clocker/pkg/fleet"
)

func TestInitMustConvergeAndBeTakenBack(t *testing.T) {
	for _, engine := range []string{"28", "20"} {
		t.Run("engine "+engine, func(t *testing.T) {
			w := up(t, "init"+engine, engine, 1)
			before := w.look("h1")
			p, c := w.init(w.tcp("h1"))
			states := w.states()
			for _, s := range []string{"demo/image", "demo/controller", "h1/plugin", "h1/agent", "h1/ready"} {
				assert.Equal(t, states[s], fleet.Done, s)
			}
			hosts, err := c.Hosts(w.ctx)
			assert.NilError(t, err)
			assert.Equal(t, len(hosts), 1)
			assert.Equal(t, hosts[0].Status, "ready")
			name, err := fleet.Current(w.dir)
			assert.NilError(t, err)
			assert.Equal(t, name, "demo")

			t.Run("a second run must keep everything", func(t *testing.T) {
				_, err := fleet.Init(w.ctx, w.initOptions(w.tcp("h1")), w.say)
				assert.NilError(t, err)
				states := w.states()
				for _, s := range []string{"demo/image", "h1/register", "h1/plugin", "h1/agent"} {
					assert.Equal(t, states[s], fleet.Kept, s)
				}
			})
			t.Run("another fleet must be refused", func(t *testing.T) {
				o := w.initOptions(w.tcp("h1"))
				o.Name = "other"
				_, err := fleet.Init(w.ctx, o, w.say)
				assert.ErrorIs(t, err, fleet.ErrOtherFleet)
				assert.ErrorContains(t, err, "fleet demo")
				_, err = fleet.Open(w.dir, "other")
				assert.ErrorIs(t, err, fleet.ErrNoFleet)
			})
			t.Run("a lost profile must be made anew", func(t *testing.T) {
				assert.NilError(t, fleet.Remove(w.dir, "demo"))
				again, _ := w.init(w.tcp("h1"))
				assert.DeepEqual(t, again.CA, p.CA)
			})
			t.Run("a lost container must be made anew with its state", func(t *testing.T) {
				w.exec("h1", "docker", "rm", "-f", fleet.ControllerContainer)
				_, c := w.init(w.tcp("h1"))
				hosts, err := c.Hosts(w.ctx)
				assert.NilError(t, err)
				assert.Equal(t, len(hosts), 1)
			})
			t.Run("another version must replace controller and agent", func(t *testing.T) {
				w.kit = kit(t, "1.0.1-test")
				w.init(w.tcp("h1"))
				for _, name := range []string{fleet.ControllerContainer, fleet.AgentContainer} {
					assert.Equal(t, w.exec("h1", "docker", "inspect", "-f", "{{.Config.Image}}", name), "clocker.io/clocker:1.0.1-test")
				}
			})
			p, err = fleet.Open(w.dir, "demo")
			assert.NilError(t, err)
			w.destroy(p, c, w.tcp("h1"))
			assert.Equal(t, w.look("h1"), before)
			_, err = os.Stat(fleet.ProfileDir(w.dir, "demo"))
			assert.ErrorIs(t, err, os.ErrNotExist)
		})
	}
}

func TestAnInterruptedInitMustLeaveNothing(t *testing.T) {
	w := up(t, "intr", "28", 1)
	before := w.look("h1")
	for _, at := range []fleet.Progress{
		{Step: fleet.StepImage, State: fleet.Doing},
		{Step: fleet.StepCertificate, State: fleet.Done},
		{Step: fleet.StepController, State: fleet.Doing},
		{Step: fleet.StepRegister, State: fleet.Done},
		{Step: fleet.StepPlugin, State: fleet.Doing},
		{Step: fleet.StepPlugin, State: fleet.Done},
		{Step: fleet.StepReady, State: fleet.Doing},
	} {
		t.Run(fmt.Sprintf("at %s %s", at.Step, at.State), func(t *testing.T) {
			ctx, cancel := context.WithCancel(w.ctx)
			defer cancel()
			_, err := fleet.Init(ctx, w.initOptions(w.tcp("h1")), func(p fleet.Progress) {
				w.say(p)
				if p.Step == at.Step && p.State == at.State {
					cancel()
				}
			})
			assert.ErrorIs(t, err, context.Canceled)
			assert.Equal(t, w.look("h1"), before)
			_, err = fleet.Open(w.dir, "demo")
			assert.ErrorIs(t, err, fleet.ErrNoFleet)
		})
	}
	p, c := w.init(w.tcp("h1"))
	w.destroy(p, c, w.tcp("h1"))
	assert.Equal(t, w.look("h1"), before)
}

// act is the user of TestAnInitThatWasKilledIsFinishedByTheNext: it makes a
// fleet and says every step on a line of its own.
func act() int {
	f := strings.Fields(os.Getenv(actEnv)) // dir, endpoint, certificates, executable, plugin
	k, err := fleet.NewKit(fleet.Build{Version: "1.0.0-test", Executable: f[3], Plugin: f[4]})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	conn, err := connect.Open(context.Background(), f[1], connect.Options{CertDir: f[2]})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	_, err = fleet.Init(context.Background(), fleet.InitOptions{Dir: f[0], Name: "demo", Engine: conn.Client, Endpoint: f[1], Kit: k}, func(p fleet.Progress) {
		fmt.Printf("%s %s\n", p.Step, p.State)
		_, _ = os.Stdin.Read(make([]byte, 1)) // go on, or be killed
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func TestAnInitThatWasKilledIsFinishedByTheNext(t *testing.T) {
	w := up(t, "kill", "28", 1)
	before := w.look("h1")
	self, err := os.Executable()
	assert.NilError(t, err)
	for _, at := range []string{"image done", "certificate done", "controller doing", "register done", "plugin doing", "agent done"} {
		t.Run("killed at "+at, func(t *testing.T) {
			cmd := exec.Command(self)
			cmd.Env = append(os.Environ(), actEnv+"="+strings.Join([]string{
				w.dir, w.tcp("h1"), w.bed.Host("h1").CertPath(), build("").Executable, build("").Plugin,
			}, " "))
			cmd.Stderr = os.Stderr
			in, err := cmd.StdinPipe()
			assert.NilError(t, err)
			out, err := cmd.StdoutPipe()
			assert.NilError(t, err)
			assert.NilError(t, cmd.Start())
			killed := false
			for lines := bufio.NewScanner(out); lines.Scan(); {
				if lines.Text() == at {
					killed = true
					assert.NilError(t, cmd.Process.Kill())
					break
				}
				_, err := in.Write([]byte{'\n'})
				assert.NilError(t, err)
			}
			_ = cmd.Wait() // it was killed
			assert.Assert(t, killed, "it never came to %s", at)
			p, c := w.init(w.tcp("h1"))
			w.destroy(p, c, w.tcp("h1"))
			assert.Equal(t, w.look("h1"), before)
		})
	}
}

func TestInitMustNameEveryPortThatIsTaken(t *testing.T) {
	w := up(t, "port", "28", 1)
	before := w.look("h1")
	// sshd and the engine listen there.
	o := w.initOptions(w.ssh("h1"))
	o.Ports = fleet.Ports{API: 22, Etcd: 2376}
	_, err := fleet.Init(w.ctx, o, w.say)
	var problems *fleet.Problems
	assert.Assert(t, errors.As(err, &problems), "%v", err)
	assert.Equal(t, len(problems.List), 2)
	assert.Assert(t, is.Contains(problems.List[0], "port 22, wanted for the API, is in use"))
	assert.Assert(t, is.Contains(problems.List[1], "port 2376, wanted for etcd"))
	assert.Equal(t, w.look("h1"), before)
}
