package controller

import (
	"context"
	"errors"
	"testing"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store/storetest"

	"gotest.tools/v3/assert"
)

func (c *Controller) stateOf(t *testing.T, host string) string {
	t.Helper()
	h, err := c.Host(t.Context(), host)
	assert.NilError(t, err)
	return h.State
}

// A removal that is refused or interrupted leaves the host as it was, and one
// that cannot succeed moves nothing.
func TestARemovalThatDoesNotSucceedLeavesTheHostAsItWas(t *testing.T) {
	client := storetest.Start(t)
	c, _ := newController(t, client, "c1")
	a := playAgents(t, client, "h1", "h2")
	c.awaitLead(t)
	app := application("app", 2, 4)
	app.Entities[0].Service.Mounts = []model.Mount{{Type: model.MountBind, Source: "/data", Target: "/data"}}
	done, problems, err := deploy(c, app)
	assert.NilError(t, err)
	assert.Equal(t, done, "ok", problems)
	_, err = c.CordonHost(t.Context(), "h2")
	assert.NilError(t, err)
	began := false
	err = c.RemoveHost(t.Context(), "h2", false, func(api.Progress) error { began = true; return nil })
	assert.ErrorContains(t, err, "cannot be emptied")
	var refused *api.CallError
	assert.Assert(t, errors.As(err, &refused))
	assert.Equal(t, len(refused.Body.Problems), 2, "%v", err)
	assert.Assert(t, !began, "nothing is begun")
	assert.Equal(t, c.stateOf(t, "h2"), record.HostCordoned)

	// Nor does one whose agent does not answer.
	k := c.store.Keys
	_, err = c.store.Txn().Delete(k.HostLease("h2")).Commit(t.Context())
	assert.NilError(t, err)
	await(t, func() bool { w, _, _ := c.workOf("h2"); return !w.up })
	assert.ErrorContains(t, c.RemoveHost(t.Context(), "h2", false, quiet), "does not answer")
	assert.Equal(t, c.stateOf(t, "h2"), record.HostCordoned)
	_, err = c.store.Txn().Put(k.HostLease("h2"), record.HostLease{}).Commit(t.Context())
	assert.NilError(t, err)
	await(t, func() bool { w, _, _ := c.workOf("h2"); return w.up })

	// ^C: what can move is held up, so that the removal is in the middle.
	app.Entities[0].Service.Mounts = nil
	done, problems, err = deploy(c, app)
	assert.NilError(t, err)
	assert.Equal(t, done, "ok", problems)
	_, err = c.CordonHost(t.Context(), "h2")
	assert.NilError(t, err)
	a.mu.Lock()
	a.hold = true
	a.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err = c.RemoveHost(ctx, "h2", false, func(api.Progress) error {
		assert.Equal(t, c.stateOf(t, "h2"), record.HostRemoving)
		cancel()
		return nil
	})
	assert.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, c.stateOf(t, "h2"), record.HostCordoned)
	await(t, func() bool {
		for _, a := range c.view("app").Assignments {
			if a.Replaces != "" {
				return false
			}
		}
		return true
	})

	// A controller that died in the middle left the host so.
	assert.NilError(t, c.setHostState(t.Context(), "h2", record.HostRemoving))
	a.mu.Lock()
	a.hold = false
	a.mu.Unlock()
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	err = c.RemoveHost(ctx, "h2", false, func(api.Progress) error { cancel(); return context.Canceled })
	assert.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, c.stateOf(t, "h2"), record.HostCordoned)
}

// A job that has ended does not run again when its host is drained, and the
// application is what it was.
func TestAnEndedJobIsNotRunAgainByADrain(t *testing.T) {
	client := storetest.Start(t)
	c, _ := newController(t, client, "c1")
	a := playAgents(t, client, "h1", "h2")
	c.awaitLead(t)
	app := application("app", 1, 2)
	app.Entities[0].Service.Restart = model.Restart{Policy: "no"}
	done, problems, err := deploy(c, app)
	assert.NilError(t, err)
	assert.Equal(t, done, "ok", problems)
	for _, as := range c.view("app").Assignments {
		k := c.store.Keys
		_, err := c.store.Txn().Put(k.Observed(as.Host, as.Task), record.Observed{
			Task: as.Task, App: as.App, Service: as.Service, Slot: as.Slot, Host: as.Host, State: record.StateComplete,
		}).Commit(t.Context())
		assert.NilError(t, err)
	}
	complete := func() bool {
		v := c.view("app")
		for _, as := range v.Assignments {
			if v.Observed[as.Task].State != record.StateComplete {
				return false
			}
		}
		return len(v.Assignments) == 2
	}
	await(t, complete)
	a.mu.Lock()
	ran := a.ran["app-s0-1"] + a.ran["app-s0-2"]
	a.mu.Unlock()
	assert.NilError(t, c.DrainHost(t.Context(), "h2", quiet))
	await(t, complete)
	a.mu.Lock()
	defer a.mu.Unlock()
	assert.Equal(t, a.ran["app-s0-1"]+a.ran["app-s0-2"], ran, "none ran again")
	assert.Equal(t, c.summary(c.view("app")).Status, "running")
}

// While a replica moves, it and its successor are one for whoever counts.
func TestAReplicaThatMovesIsCountedOnce(t *testing.T) {
	tasks := []api.Task{
		{Service: "web", Slot: 1, Name: "a-web-1", State: record.StateRunning},
		{Service: "web", Slot: 1, Name: "a-web-1", State: record.StateFailed, Error: "exited with code 1"},
		{Service: "web", Slot: 2, Name: "a-web-2", State: record.StateRunning},
		{Service: "web", Slot: 2, Name: "a-web-2", State: record.StateRunning},
		{Service: "web", Slot: 3, Name: "a-web-3", State: record.StateFailed, Error: "exited with code 2"},
		{Service: "web", Slot: 4, Name: "a-web-4", State: record.StateRunning, Desired: "remove"},
	}
	rs := replicasOf(tasks)
	assert.Equal(t, len(rs), 3)
	assert.Assert(t, rs[0].runs && rs[0].good && rs[1].runs && !rs[2].good)
	assert.Equal(t, rs[2].trouble, "a-web-3: exited with code 2")
}
