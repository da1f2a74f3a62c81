package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/api/apitest"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
)

// down returns the URL of a port on which nothing listens.
func down(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	defer func() { assert.NilError(t, l.Close()) }()
	return "https://" + l.Addr().String()
}

func refuse(status int, e api.Error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(e)
	}
}

func sendLines(w http.ResponseWriter, ps ...api.Progress) {
	for _, p := range ps {
		_ = json.NewEncoder(w).Encode(p)
		_ = http.NewResponseController(w).Flush()
	}
}

func TestAClientMovesOnFromADeadControllerAndStaysWithTheOneThatAnswers(t *testing.T) {
	f := apitest.NewFleet(t)
	dead := down(t)
	s := f.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"fleet":"test"}`)
	}))
	c := api.NewClient([]string{dead, s.URL + "/"}, f.TLS())
	defer c.Close()
	info, err := c.Info(t.Context())
	assert.NilError(t, err)
	assert.Equal(t, info.Fleet, "test")
	assert.DeepEqual(t, c.Controllers(), []string{s.URL, dead})
}

func TestAControllerThatCannotServeIsPassedOver(t *testing.T) {
	f := apitest.NewFleet(t)
	a := f.Serve(refuse(http.StatusServiceUnavailable, api.Error{Message: "no leader yet"}))
	b := f.Serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		sendLines(w, api.Progress{Release: 1, Done: "ok"})
	}))
	c := api.NewClient([]string{a.URL, b.URL}, f.TLS())
	defer c.Close()
	assert.NilError(t, c.Deploy(t.Context(), api.DeployRequest{Application: &model.Application{Name: "a"}}, func(api.Progress) error { return nil }))

	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, err := api.NewClient([]string{a.URL}, f.TLS()).Info(ctx)
	assert.Assert(t, errors.Is(err, api.ErrUnreachable))
	assert.Equal(t, err.Error(), "no controller answers:\n  "+a.URL+": no leader yet")
}

func TestAnElectionIsWaitedFor(t *testing.T) {
	f := apitest.NewFleet(t)
	var asked atomic.Int32
	refusing := refuse(http.StatusServiceUnavailable, api.Error{Message: "no leader yet"})
	s := f.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) <= 2 {
			refusing(w, r)
			return
		}
		sendLines(w, api.Progress{Release: 1, Done: "ok"})
	}))
	c := api.NewClient([]string{s.URL}, f.TLS())
	defer c.Close()
	assert.NilError(t, c.Deploy(t.Context(), api.DeployRequest{Application: &model.Application{Name: "a"}}, func(api.Progress) error { return nil }))
	assert.Equal(t, asked.Load(), int32(3))
}

func TestNoControllerAnswersNamesEachAndWhy(t *testing.T) {
	f, stranger := apitest.NewFleet(t), apitest.NewFleet(t)
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `[]`) })
	other := stranger.Serve(handler) // its certificate is of another CA
	mixed := f.TLS()
	mixed.Certificates = stranger.TLS().Certificates
	strict := f.Serve(handler) // it refuses the user's certificate
	dead := down(t)
	c := api.NewClient([]string{dead, other.URL, strict.URL}, mixed)
	defer c.Close()
	_, err := c.Hosts(t.Context())
	assert.Assert(t, errors.Is(err, api.ErrUnreachable), "%v", err)
	lines := strings.Split(err.Error(), "\n")
	assert.Equal(t, len(lines), 6, err.Error())
	assert.Equal(t, lines[1], "  "+dead+": connect: connection refused")
	assert.Assert(t, cmp.Contains(lines[2], other.URL+": tls: failed to verify certificate"))
	assert.Assert(t, cmp.Contains(lines[3], strict.URL+": refuses this user's certificate"))
}

func TestRefusalsKeepTheirKindAndEveryProblem(t *testing.T) {
	f := apitest.NewFleet(t)
	for status, want := range map[int]error{
		400: api.ErrInvalid, 403: api.ErrForbidden, 404: api.ErrNotFound, 409: api.ErrConflict,
	} {
		s := f.Serve(refuse(status, api.Error{Message: "cannot", Problems: []string{"first", "second"}}))
		c := api.NewClient([]string{s.URL}, f.TLS())
		err := c.Deploy(t.Context(), api.DeployRequest{}, func(api.Progress) error { return nil })
		assert.Assert(t, errors.Is(err, want), "%d: %v", status, err)
		assert.Equal(t, err.Error(), "cannot\nfirst\nsecond")
		c.Close()
	}
	s := f.Serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "proxy says no", http.StatusBadGateway) }))
	c := api.NewClient([]string{s.URL}, f.TLS())
	defer c.Close()
	_, err := c.Info(t.Context())
	assert.Error(t, err, "proxy says no")
}

func TestARequestThatMayHaveBeenSeenIsNotSentAgain(t *testing.T) {
	f := apitest.NewFleet(t)
	var seen atomic.Int32
	drop := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		seen.Add(1)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_ = conn.Close()
		}
	})
	c := api.NewClient([]string{f.Serve(drop).URL, f.Serve(drop).URL}, f.TLS())
	defer c.Close()
	err := c.Deploy(t.Context(), api.DeployRequest{}, func(api.Progress) error { return nil })
	assert.Assert(t, errors.Is(err, api.ErrLost), "%v", err)
	assert.Equal(t, seen.Load(), int32(1))

	seen.Store(0)
	_, err = c.Info(t.Context()) // changes nothing: every controller is asked
	assert.Assert(t, errors.Is(err, api.ErrUnreachable), "%v", err)
	assert.Assert(t, seen.Load() >= 2)
}

func TestAStreamThatEndsWithoutItsLastLineIsLost(t *testing.T) {
	f := apitest.NewFleet(t)
	s := f.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost:
			sendLines(w, api.Progress{Release: 7}, api.Progress{}, api.Progress{Release: 7, Task: &api.Task{Name: "a-b-1", State: "creating"}})
		case r.URL.Path == "/v1/applications/a/progress" && r.URL.Query().Get("release") == "7":
			sendLines(w, api.Progress{Release: 7, Problem: "port 80 is taken"}, api.Progress{Release: 7, Done: "failed"}, api.Progress{Problem: "after the end"})
		default:
			http.NotFound(w, r)
		}
	}))
	c := api.NewClient([]string{s.URL}, f.TLS())
	defer c.Close()
	var got []api.Progress
	keep := func(p api.Progress) error { got = append(got, p); return nil }
	err := c.Deploy(t.Context(), api.DeployRequest{}, keep)
	assert.Assert(t, errors.Is(err, api.ErrLost), "%v", err)
	assert.Equal(t, len(got), 3)
	got = nil
	assert.NilError(t, c.Progress(t.Context(), "a", 7, keep))
	assert.Equal(t, got[0].Problem, "port 80 is taken")
	assert.Equal(t, got[len(got)-1].Done, "failed", "nothing is read after the end")
}

func TestEventsSkipHeartbeatsAndEndWithTheContext(t *testing.T) {
	f := apitest.NewFleet(t)
	s := f.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Check(t, r.URL.RawQuery == "follow=1&since=4", r.URL.RawQuery)
		_, _ = fmt.Fprintln(w, `{}`)
		_, _ = fmt.Fprintln(w, `{"id":"5","type":"task"}`)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	c := api.NewClient([]string{s.URL}, f.TLS())
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	err := c.Events(ctx, true, "4", func(e record.Event) error {
		assert.Equal(t, e.ID, "5")
		cancel()
		return nil
	})
	assert.Assert(t, errors.Is(err, context.Canceled), "%v", err)
}

func TestExecTakesTheConnectionOverAndKeepsTheHalvesApart(t *testing.T) {
	f := apitest.NewFleet(t)
	s := f.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req api.ExecRequest
		assert.Check(t, json.NewDecoder(r.Body).Decode(&req) == nil)
		assert.Check(t, r.Header.Get("Upgrade") == "tcp" && r.URL.Path == "/v1/tasks/t1/exec")
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = fmt.Fprintf(rw, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n%s: e9\r\n\r\nhello ", api.ExecHeader)
		_ = rw.Flush()
		in, _ := io.ReadAll(rw) // until the client closes its half
		_, _ = fmt.Fprintf(rw, "%s got %q", req.Cmd[0], in)
		_ = rw.Flush()
	}))
	c := api.NewClient([]string{down(t), s.URL}, f.TLS())
	defer c.Close()
	conn, err := c.Exec(t.Context(), "t1", api.ExecRequest{Cmd: []string{"cat"}})
	assert.NilError(t, err)
	defer func() { _ = conn.Close() }()
	assert.Equal(t, conn.ID, "e9")
	head, err := bufio.NewReaderSize(conn, 16).Peek(6)
	assert.NilError(t, err)
	assert.Equal(t, string(head), "hello ")
	_, err = io.WriteString(conn, "input")
	assert.NilError(t, err)
	assert.NilError(t, conn.CloseWrite())
	rest, err := io.ReadAll(conn)
	assert.NilError(t, err)
	assert.Assert(t, strings.HasSuffix(string(rest), `cat got "input"`), "%q", rest)
}

func TestExecThatIsRefusedIsAnOrdinaryError(t *testing.T) {
	f := apitest.NewFleet(t)
	s := f.Serve(refuse(404, api.Error{Message: "there is no task t1"}))
	c := api.NewClient([]string{s.URL}, f.TLS())
	defer c.Close()
	_, err := c.Exec(t.Context(), "t1", api.ExecRequest{Cmd: []string{"cat"}})
	assert.Assert(t, errors.Is(err, api.ErrNotFound))
	assert.Error(t, err, "there is no task t1")
}

func TestEveryCallUsesThePathOfTheInterface(t *testing.T) {
	f := apitest.NewFleet(t)
	var got string
	s := f.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Method + " " + r.URL.RequestURI()
		switch {
		case strings.Contains(r.URL.Path, "/stop"), r.Method == http.MethodDelete:
			sendLines(w, api.Progress{Done: "ok"})
		case r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "s") && !strings.Contains(r.URL.Path, "/logs"):
			_, _ = io.WriteString(w, `[]`)
		default:
			_, _ = io.WriteString(w, `{}`)
		}
	}))
	c := api.NewClient([]string{s.URL}, f.TLS())
	defer c.Close()
	ctx, none := t.Context(), func(api.Progress) error { return nil }
	for want, call := range map[string]func() error{
		"GET /v1/info":                           func() error { _, err := c.Info(ctx); return err },
		"GET /v1/applications":                   func() error { _, err := c.Applications(ctx); return err },
		"GET /v1/applications/a%2Fb":             func() error { _, err := c.Application(ctx, "a/b"); return err },
		"GET /v1/tasks":                          func() error { _, err := c.Tasks(ctx, ""); return err },
		"GET /v1/tasks?app=a":                    func() error { _, err := c.Tasks(ctx, "a"); return err },
		"GET /v1/hosts":                          func() error { _, err := c.Hosts(ctx); return err },
		"GET /v1/hosts/h":                        func() error { _, err := c.Host(ctx, "h"); return err },
		"POST /v1/hosts":                         func() error { _, err := c.RegisterHost(ctx, api.HostRequest{}); return err },
		"DELETE /v1/hosts/h?force=1":             func() error { return c.RemoveHost(ctx, "h", true, none) },
		"DELETE /v1/applications/a":              func() error { return c.Remove(ctx, "a", none) },
		"POST /v1/applications/a/cancel":         func() error { return c.Cancel(ctx, "a") },
		"GET /v1/tasks/t/exec/e":                 func() error { _, err := c.ExecState(ctx, "t", "e"); return err },
		"POST /v1/tasks/t/exec/e/resize?h=3&w=4": func() error { return c.ExecResize(ctx, "t", "e", 3, 4) },
		"POST /v1/applications/a/stop?service=x&service=y": func() error {
			return c.Operate(ctx, "a", "stop", []string{"x", "y"}, none)
		},
		"GET /v1/tasks/t/logs?follow=1&since=2026-01-01T00%3A00%3A00Z&tail=5&timestamps=1": func() error {
			r, err := c.Logs(ctx, "t", api.LogOptions{Follow: true, Tail: "5", Since: "2026-01-01T00:00:00Z", Timestamps: true})
			if err == nil {
				err = r.Close()
			}
			return err
		},
	} {
		assert.NilError(t, call(), want)
		assert.Equal(t, got, want)
	}
}

func TestACancelledCallSaysSo(t *testing.T) {
	f := apitest.NewFleet(t)
	s := f.Serve(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	c := api.NewClient([]string{s.URL}, f.TLS())
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := c.Info(ctx)
	assert.Assert(t, errors.Is(err, context.DeadlineExceeded), "%v", err)
}
