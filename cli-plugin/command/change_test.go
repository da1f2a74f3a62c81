package command

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"

	"clocker.io/clocker/pkg/api"
)

func writeJSON(w http.ResponseWriter, v any) {
	_ = json.NewEncoder(w).Encode(v)
	_ = http.NewResponseController(w).Flush()
}

// deploys answers a deploy with a stream, and the rest as a fleet would.
func deploys(stream ...api.Progress) answers {
	return answers{
		"POST /v1/applications":  stream,
		"GET /v1/tasks?app=shop": []api.Task{shopTask("web", 1, "running"), shopTask("db", 1, "running")},
	}
}

func done(word string) api.Progress { return api.Progress{Release: 3, Done: word} }

func TestDeployShowsProgressAndAddresses(t *testing.T) {
	m := newMachine(t)
	m.serve(deploys(append(progressOf(shopTask("db", 1, "preparing"), shopTask("web", 1, "waiting"), shopTask("db", 1, "running"), shopTask("web", 1, "running")), done("ok"))...))
	r := m.run("deploy", m.compose("db", "web"))
	assert.Equal(t, r.code, ExitOK, r.err)
	assert.Equal(t, r.out, "web  http://10.88.0.11:80\n")
	golden.Assert(t, r.err, "deploy.golden")

	r = m.run("deploy", "-q", m.compose("db", "web"))
	assert.Equal(t, r, run{})
}

func TestDeploySendsWhatTheUserAskedFor(t *testing.T) {
	m := newMachine(t)
	var got api.DeployRequest
	m.serve(answers{
		"POST /v1/applications": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			assert.Check(t, json.NewDecoder(r.Body).Decode(&got) == nil)
			send(w, done("ok"))
		}),
		"GET /v1/tasks?app=store": []api.Task{},
	})
	r := m.run("deploy", "--wait", "--app", "store", m.compose("db"))
	assert.Equal(t, r.code, ExitOK, r.err)
	assert.Equal(t, got.Application.Name, "store")
	assert.Assert(t, got.Wait && !got.DryRun)
}

func TestDryRunShowsEveryStepWithItsCause(t *testing.T) {
	m := newMachine(t)
	m.serve(deploys(
		api.Progress{Step: &api.Step{Action: "create", Kind: "network", Subject: "shop_default", Cause: "it does not exist"}},
		api.Progress{Step: &api.Step{Action: "create", Kind: "task", Subject: "shop-web-1", Host: "host2", Cause: "the file asks for it; fewest replicas"}},
		done("ok"),
	))
	r := m.run("deploy", "--dry-run", m.compose("web"))
	assert.Equal(t, r.code, ExitOK, r.err)
	golden.Assert(t, r.out, "dry-run.golden")
	assert.Equal(t, r.err, "")

	m.serve(deploys(api.Progress{Step: &api.Step{Action: "keep", Kind: "task", Subject: "shop-web-1", Host: "host2", Cause: "it is as the file says"}}, done("ok")))
	r = m.run("deploy", "--dry-run", m.compose("web"))
	assert.Equal(t, r.err, "shop is as the file says: nothing to do\n")
}

func TestProblemsOfAFileComeAllAtOnceAndNothingIsSent(t *testing.T) {
	m := newMachine(t) // and knows no fleet: the file comes first
	file := m.file("compose.yaml", "services:\n  web:\n    image: web\n    nonsense: 1\n  db:\n    imaje: db\n")
	r := m.run("deploy", file)
	assert.Equal(t, r.code, ExitInvalid, r.err)
	lines := strings.Split(strings.TrimSpace(r.err), "\n")
	assert.Assert(t, len(lines) >= 4, r.err)
	assert.Assert(t, strings.HasPrefix(lines[0], file+":4:"), r.err)
	assert.Assert(t, strings.HasPrefix(lines[len(lines)-3], file+":6:"), r.err)
	assert.Assert(t, strings.HasSuffix(lines[len(lines)-1], "problems: nothing was deployed"), r.err)

	r = m.run("deploy", filepath.Join(t.TempDir(), "none.yaml"))
	assert.Equal(t, r.code, ExitInvalid, r.err)
}

func TestDeployReadsStandardInput(t *testing.T) {
	m := newMachine(t)
	m.serve(deploys(done("ok")))
	m.in = "name: shop\nservices:\n  web:\n    image: web:1\n"
	r := m.run("deploy", "-")
	assert.Equal(t, r.code, ExitOK, r.err)
	assert.Equal(t, r.out, "web  http://10.88.0.11:80\n")
}

func TestADeployThatFailsSaysWhy(t *testing.T) {
	m := newMachine(t)
	failed := shopTask("web", 1, "failed")
	failed.Error = "port 80 is taken by nginx"
	for name, tc := range map[string]struct {
		answer any
		code   int
		err    string // the last lines
	}{
		"failed": {
			append(progressOf(failed), api.Progress{Release: 3, Problem: "shop-web-1 on host1: port 80 is taken by nginx"}, done("failed")), ExitFailed,
			"deploy shop: failed and taken back (release 3)\nshop-web-1 on host1: port 80 is taken by nginx\n",
		},
		"cancelled by another": {[]api.Progress{done("cancelled")}, ExitFailed, "deploy shop: taken back by another user (release 3)\n"},
		"conflict":             {[]api.Progress{done("conflict")}, ExitConflict, "deploy shop: something else changed meanwhile: try again\n"},
		"under way": {
			&api.CallError{Status: 409, Body: api.Error{Message: "release 2 of application shop is under way"}}, ExitConflict,
			"release 2 of application shop is under way\n",
		},
		"refused": {
			&api.CallError{Status: 400, Body: api.Error{Message: "application shop cannot be deployed:", Problems: []string{"app.yaml:3: no such fleet"}}}, ExitInvalid,
			"application shop cannot be deployed:\napp.yaml:3: no such fleet\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			m.serve(answers{"POST /v1/applications": tc.answer})
			r := m.run("deploy", m.compose("web"))
			assert.Equal(t, r.code, tc.code, r.err)
			assert.Equal(t, r.out, "")
			assert.Assert(t, strings.HasSuffix(r.err, tc.err), r.err)
			if _, refused := tc.answer.(*api.CallError); refused {
				assert.Equal(t, r.err, tc.err, "nothing was begun")
			}
		})
	}
}

func TestALostConnectionIsTakenUpAgain(t *testing.T) {
	m := newMachine(t)
	var tries atomic.Int32
	a := deploys(api.Progress{Release: 3}) // and nothing more
	a["GET /v1/applications/shop/progress?release=3"] = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if tries.Add(1) == 1 {
			send(w, progressOf(shopTask("web", 1, "starting"))...)
			return // lost again
		}
		send(w, append(progressOf(shopTask("web", 1, "running")), done("ok"))...)
	})
	m.serve(a)
	r := m.run("deploy", m.compose("web"))
	assert.Equal(t, r.code, ExitOK, r.err)
	assert.Assert(t, strings.Contains(r.err, "connection to the controller lost"), r.err)
	assert.Assert(t, strings.Contains(r.err, "shop-web-1 (host1): Started"), r.err)
}

func TestALostConnectionBeforeTheReleaseIsKnownSaysWhereToLook(t *testing.T) {
	m := newMachine(t)
	m.serve(deploys())
	r := m.run("deploy", m.compose("web"))
	assert.Equal(t, r.code, ExitUnreachable, r.err)
	assert.Assert(t, strings.Contains(r.err, "it may go on without this command: docker clocker ps shop shows how far it is"), r.err)
}

func TestAnInterruptTakesTheDeployBack(t *testing.T) {
	m := newMachine(t)
	cancelled := make(chan struct{})
	a := deploys()
	a["POST /v1/applications"] = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		send(w, progressOf(shopTask("web", 1, "preparing"))...)
		if err := syscall.Kill(syscall.Getpid(), syscall.SIGINT); err != nil {
			t.Error(err)
		}
		<-cancelled
		send(w, done("cancelled"))
	})
	a["POST /v1/applications/shop/cancel"] = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, struct{}{})
		close(cancelled)
	})
	m.serve(a)
	r := m.run("deploy", m.compose("web"))
	assert.Equal(t, r.code, ExitInterrupted, r.err)
	assert.Assert(t, strings.HasSuffix(r.err, "deploy shop: interrupted (release 3): what was begun has been taken back\n"), r.err)
}

func TestOperationsNameTheirServices(t *testing.T) {
	m := newMachine(t)
	stopped := shopTask("web", 1, "stopped")
	stopped.Desired = "stop"
	m.serve(answers{
		"POST /v1/applications/shop/stop?service=web": append(progressOf(stopped), api.Progress{Done: "ok"}),
		"POST /v1/applications/shop/start":            []api.Progress{{Done: "ok"}},
		"POST /v1/applications/shop/restart":          append(progressOf(shopTask("web", 1, "failed")), api.Progress{Problem: "shop-web-1 on host1: exit 1"}, api.Progress{Done: "failed"}),
		"POST /v1/applications/none/start":            notThere("application none"),
	})
	r := m.run("stop", "shop", "web")
	assert.Equal(t, r.code, ExitOK, r.err)
	assert.Equal(t, r.err, "Stopping shop\n shop-web-1 (host1): Stopped\nshop stopped in 0.0s\n")
	assert.Equal(t, m.run("start", "-q", "shop"), run{})
	r = m.run("restart", "shop")
	assert.Equal(t, r.code, ExitFailed)
	assert.Assert(t, strings.HasSuffix(r.err, "restart shop: failed\nshop-web-1 on host1: exit 1\n"), r.err)
	r = m.run("start", "none")
	assert.Equal(t, r.code, ExitNotFound, r.err)
}

func TestRmGoesOnWithTheNextApplication(t *testing.T) {
	m := newMachine(t)
	m.serve(answers{
		"DELETE /v1/applications/a": notThere("application a"),
		"DELETE /v1/applications/b": []api.Progress{{Done: "ok"}},
	})
	r := m.run("rm", "a", "b")
	assert.Equal(t, r.code, ExitNotFound, r.err)
	assert.Assert(t, strings.Contains(r.err, "b removed"), r.err)
	assert.Assert(t, strings.HasSuffix(r.err, "there is no application a\n"), r.err)
}

// logOf is a log in the engine's multiplexed form.
func logOf(lines ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for _, l := range lines {
			_, _ = w.Write([]byte{1, 0, 0, 0, 0, 0, 0, byte(len(l) + 1)})
			_, _ = io.WriteString(w, l+"\n")
		}
	}
}

func TestLogsOfAllReplicasAreMerged(t *testing.T) {
	m := newMachine(t)
	a := fleetOfShop()
	a["GET /v1/tasks/id-shop-web-1/logs?since=2026-03-01T11%3A50%3A00Z&tail=2"] = logOf("one", "two")
	a["GET /v1/tasks/id-shop-web-2/logs?since=2026-03-01T11%3A50%3A00Z&tail=2"] = &api.CallError{Status: 502, Body: api.Error{Message: "the agent of host host1 does not answer"}}
	m.serve(a)
	r := m.run("logs", "-n", "2", "--since", "10m", "shop", "web")
	assert.Equal(t, r.code, ExitFailed)
	assert.Equal(t, r.out, "shop-web-1  | one\nshop-web-1  | two\n")
	assert.Equal(t, r.err, "shop-web-2: the agent of host host1 does not answer\n")
}

func TestExecGivesStreamsAndExitCode(t *testing.T) {
	m := newMachine(t)
	m.in = "typed\n"
	a := fleetOfShop()
	var asked api.ExecRequest
	a["POST /v1/tasks/id-shop-web-2/exec"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Check(t, json.NewDecoder(r.Body).Decode(&asked) == nil)
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = fmt.Fprintf(rw, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n%s: e1\r\n\r\n", api.ExecHeader)
		_ = rw.Flush()
		in, _ := io.ReadAll(rw)
		var b bytes.Buffer
		b.Write([]byte{1, 0, 0, 0, 0, 0, 0, byte(len(in))})
		b.Write(in)
		b.Write([]byte{2, 0, 0, 0, 0, 0, 0, 5})
		b.WriteString("oops\n")
		_, _ = b.WriteTo(rw)
		_ = rw.Flush()
	})
	a["GET /v1/tasks/id-shop-web-2/exec/e1"] = api.ExecState{ExitCode: 42}
	m.serve(a)
	r := m.run("exec", "-i", "--index", "2", "-e", "A=b", "-u", "root", "shop", "web", "cat", "-n")
	assert.Equal(t, r, run{code: 42, out: "typed\n", err: "oops\n"})
	assert.DeepEqual(t, asked, api.ExecRequest{Cmd: []string{"cat", "-n"}, Stdin: true, Env: []string{"A=b"}, User: "root"})

	r = m.run("exec", "-it", "shop", "web", "sh")
	assert.Equal(t, r.code, ExitInvalid, "a terminal needs a terminal: %s", r.err)
	r = m.run("exec", "--index", "9", "shop", "web", "sh")
	assert.Equal(t, r.code, ExitNotFound)
	assert.Equal(t, r.err, "shop has no replica 9 of web: it has 2\n")
}
