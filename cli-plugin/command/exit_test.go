package command

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/docker/cli/cli"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/cli-plugin/follow"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/engine/connect"
	"clocker.io/clocker/pkg/fleet"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
)

func TestEveryErrorHasItsCode(t *testing.T) {
	for _, tc := range []struct {
		err  error
		code int
	}{
		{nil, ExitOK},
		{errors.New("x"), ExitFailed},
		{&fleet.Problems{Subject: "h", List: []string{"kernel too old"}}, ExitFailed},
		{usageError{errors.New("x")}, ExitInvalid},
		{model.Problems{{Text: "x"}}, ExitInvalid},
		{&api.CallError{Status: 400}, ExitInvalid},
		{&connect.Error{Kind: connect.Invalid}, ExitInvalid},
		{fleet.ErrName, ExitInvalid},
		{fleet.ErrNoFleet, ExitUnreachable},
		{&api.UnreachableError{}, ExitUnreachable},
		{api.ErrLost, ExitUnreachable},
		{&connect.Error{Kind: connect.Refused}, ExitUnreachable},
		{fleet.ErrUnreachable, ExitUnreachable},
		{&api.CallError{Status: 404}, ExitNotFound},
		{notFound("x"), ExitNotFound},
		{&api.CallError{Status: 409}, ExitConflict},
		{fleet.ErrOtherFleet, ExitConflict},
		{fleet.ErrInUse, ExitConflict},
		{follow.ErrAbandoned, ExitInterrupted},
		{context.Canceled, ExitInterrupted},
		{statusError(42), 42},
		{cli.StatusError{StatusCode: 64, Status: "template"}, 64},
		{cli.StatusError{Status: "an error is never a success"}, ExitFailed},
	} {
		for _, err := range []error{tc.err, fmt.Errorf("do it: %w", tc.err), errors.Join(errors.New("first"), tc.err)} {
			if tc.err == nil {
				err = nil
			}
			code, _ := Exit(err)
			assert.Equal(t, code, tc.code, "%v", err)
		}
	}
	// An interrupted step is an interrupt, whatever it was about.
	code, text := Exit(fmt.Errorf("add host h: %w: %w", &connect.Error{Kind: connect.Timeout, Text: "t"}, context.Canceled))
	assert.Equal(t, code, ExitInterrupted)
	assert.Assert(t, text != "")
}

func TestOnlyWhatHasNothingToSayIsSilent(t *testing.T) {
	for _, err := range []error{statusError(3), context.Canceled} {
		_, text := Exit(err)
		assert.Equal(t, text, "")
	}
	_, text := Exit(&api.UnreachableError{Attempts: []api.Attempt{{URL: "https://a", Err: errors.New("refused")}}})
	assert.Equal(t, text, "no controller answers:\n  https://a: refused\nLook for the container clocker-controller on that machine (docker ps -a), or choose another fleet with --fleet.")
}

func TestMoment(t *testing.T) {
	for in, want := range map[string]time.Time{
		"10m":                       now.Add(-10 * time.Minute),
		"0s":                        now,
		"2026-01-02T03:04:05Z":      time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		"2026-01-02T03:04:05.5":     time.Date(2026, 1, 2, 3, 4, 5, 5e8, time.UTC),
		"2026-01-02T03:04:05+01:00": time.Date(2026, 1, 2, 2, 4, 5, 0, time.UTC),
		"2026-01-02":                time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC),
		"1767323045":                time.Unix(1767323045, 0),
	} {
		got, err := moment(in, now)
		assert.NilError(t, err, in)
		assert.Assert(t, got.Equal(want), "%s: %s", in, got)
	}
	for _, in := range []string{"", "soon", "10 m", "2026-13-01"} {
		_, err := moment(in, now)
		assert.Assert(t, errors.Is(err, errInvalid), in)
	}
}

func TestEventFilters(t *testing.T) {
	ev := record.Event{Type: "task", Action: "die", Subject: "shop-web-1", Attrs: map[string]string{"app": "shop"}}
	for _, tc := range []struct {
		filters []string
		want    bool
	}{
		{nil, true},
		{[]string{"type=task"}, true},
		{[]string{"type=host", "type=task"}, true}, // of one key, one must match
		{[]string{"type=task", "action=start"}, false},
		{[]string{"app=shop", "subject=shop-web-1"}, true},
		{[]string{"host=h1"}, false},
	} {
		match, err := eventFilter(tc.filters)
		assert.NilError(t, err)
		assert.Equal(t, match(ev), tc.want, "%v", tc.filters)
	}
}

func TestPickTakesTheNumberedReplicaOrTheFirstThatRuns(t *testing.T) {
	tasks := []api.Task{
		{ID: "a", Slot: 1, Name: "shop-web-1", State: record.StateFailed},
		{ID: "b", Slot: 2, State: record.StateRunning},
		{ID: "c", Slot: 3, State: record.StateRunning},
	}
	for _, tc := range []struct {
		tasks []api.Task
		index int
		want  string
		kind  error
	}{
		{tasks, 0, "b", nil},
		{tasks, 3, "c", nil},
		{tasks, 1, "", errConflict},
		{tasks, 4, "", errNotFound},
		{tasks[:1], 0, "", errConflict},
	} {
		got, err := pick(tc.tasks, execOptions{app: "shop", service: "web", index: tc.index})
		if tc.kind != nil {
			assert.Assert(t, errors.Is(err, tc.kind), "%v", err)
			continue
		}
		assert.NilError(t, err)
		assert.Equal(t, got.ID, tc.want)
	}
}

func TestTheProfileRemembersHowAHostIsReached(t *testing.T) {
	env := map[string]string{"DOCKER_CERT_PATH": "/env/certs", connect.EnvIdentity: "/env/id"}
	r := reachFlags{fleet.Access{Identity: "/flag/id"}}
	a, err := r.absolute(func(k string) string { return env[k] })
	assert.NilError(t, err)
	assert.DeepEqual(t, a, fleet.Access{CertDir: "/env/certs", Identity: "/flag/id"})

	p := &fleet.Profile{Access: map[string]fleet.Access{"h": a}}
	o := reachFlags{fleet.Access{CertDir: "/new"}}.known(&Env{}, p, "h")
	assert.Equal(t, o.CertDir, "/new", "a flag goes before what is remembered")
	assert.Equal(t, o.Identity, "/flag/id")
}
