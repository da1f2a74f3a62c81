package controller

import (
	"context"
	"strings"
	"testing"
	"time"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store/storetest"
	"gotest.tools/v3/assert"
)

func quiet(api.Progress) error { return nil }

// hurried is a controller that judges hosts as soon as it leads.
func hurried(c *Controller) { c.leaderGrace = time.Millisecond }

func (c *Controller) healthOf(host string) record.HostHealth {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	return c.cache.health[host].Value
}

// inOrder reports whether an application's replicas run once each, and none on
// a host.
func (c *Controller) inOrder(app string, replicas int, without string) bool {
	v := c.view(app)
	for _, a := range v.Assignments {
		if a.Host == without || a.Phase != record.PhaseRun || v.Observed[a.Task].State != record.StateRunning {
			return false
		}
	}
	return len(v.Assignments) == replicas
}

func TestLostHostsWorkIsReplacedAndItsKeysGoWhenItIsBack(t *testing.T) {
	client := storetest.Start(t)
	c, _ := newControllerWith(t, client, "c1", hurried)
	playAgents(t, client, "h1", "h2", "h3")
	c.awaitLead(t)
	app := application("app", 2, 3)
	app.Entities[0].Service.Mounts = []model.Mount{{Type: model.MountBind, Source: "/data", Target: "/data"}}
	done, problems, err := deploy(c, app)
	assert.NilError(t, err)
	assert.Equal(t, done, "ok", problems)
	fenced := 0
	for _, a := range c.view("app").Assignments {
		if a.Host == "h2" && a.Container.Fenced {
			fenced++
		}
	}
	assert.Assert(t, fenced > 0)
	k := c.store.Keys
	_, err = c.store.Txn().Delete(k.HostLease("h2")).Commit(t.Context())
	assert.NilError(t, err)
	await(t, func() bool { return c.healthOf("h2").State == record.HealthSuspect })
	h, err := c.Host(t.Context(), "h2")
	assert.NilError(t, err)
	assert.Equal(t, h.Status, record.HealthSuspect)
	await(t, func() bool { return c.healthOf("h2").State == record.HealthLost })
	await(t, func() bool {
		v, on := c.view("app"), 0
		for _, a := range v.Assignments {
			if a.Host == "h2" {
				on++
			}
		}
		return on == fenced && len(v.Assignments) == 6
	})
	_, err = c.store.Txn().Put(k.HostLease("h2"), record.HostLease{}).Commit(t.Context())
	assert.NilError(t, err)
	await(t, func() bool { return c.healthOf("h2").State == record.HealthReady })
	await(t, func() bool { return c.inOrder("app", 6, "") })
}

func TestQuarantineEndsWhenTheHostIsEnabled(t *testing.T) {
	client := storetest.Start(t)
	c, _ := newControllerWith(t, client, "c1", hurried)
	playAgents(t, client, "h1", "h2", "h3")
	c.awaitLead(t)
	now := time.Now()
	_, err := c.store.Txn().Put(c.store.Keys.HostHealth("h2"), record.HostHealth{
		State: record.HealthQuarantined, Since: now, Losses: []time.Time{now, now, now},
	}).Commit(t.Context())
	assert.NilError(t, err)
	await(t, func() bool { return c.healthOf("h2").State == record.HealthQuarantined })
	done, problems, err := deploy(c, application("app", 1, 3))
	assert.NilError(t, err)
	assert.Equal(t, done, "ok", problems)
	assert.Assert(t, c.inOrder("app", 3, "h2"))
	h, err := c.EnableHost(t.Context(), "h2")
	assert.NilError(t, err)
	assert.Equal(t, h.Status, "ready")
}

func TestDrainEmptiesAHost(t *testing.T) {
	client := storetest.Start(t)
	c, _ := newController(t, client, "c1")
	playAgents(t, client, "h1", "h2", "h3")
	c.awaitLead(t)
	done, problems, err := deploy(c, application("app", 3, 3))
	assert.NilError(t, err)
	assert.Equal(t, done, "ok", problems)
	p, err := c.PlanDrain(t.Context(), "h2")
	assert.NilError(t, err)
	assert.Assert(t, len(p.Moves) > 0)
	assert.Assert(t, !c.inOrder("app", 9, "h2"), "a plan changes nothing")
	moved := map[string]string{}
	assert.NilError(t, c.DrainHost(t.Context(), "h2", func(p api.Progress) error {
		if p.Step != nil && p.Step.Action == "move" {
			moved[p.Step.Subject] = p.Step.Host
		}
		return nil
	}))
	for _, m := range p.Moves {
		assert.Assert(t, moved[m.Name] != "" && moved[m.Name] != "h2", m.Name)
	}
	await(t, func() bool { return c.inOrder("app", 9, "h2") })
	assert.NilError(t, c.DrainHost(t.Context(), "h2", quiet), "it is safe to repeat")
	h, err := c.EnableHost(t.Context(), "h2")
	assert.NilError(t, err)
	assert.Equal(t, h.State, record.HostActive)
	// It is the emptiest host now.
	moves, err := c.PlanRebalance(t.Context(), 0)
	assert.NilError(t, err)
	assert.Assert(t, len(moves) > 0)
	assert.NilError(t, c.Rebalance(t.Context(), 0, quiet))
	assert.Assert(t, !c.inOrder("app", 9, "h2"))
	moves, err = c.PlanRebalance(t.Context(), 0)
	assert.NilError(t, err)
	assert.Equal(t, len(moves), 0, "%+v", moves)
}

// A drain is in the host's state: the next leader goes on with it.
func TestNextLeaderGoesOnWithADrain(t *testing.T) {
	server := storetest.StartServer(t)
	c1, stop := newController(t, server.NewClient(), "c1")
	playAgents(t, server.Client(), "h1", "h2", "h3")
	c1.awaitLead(t)
	done, problems, err := deploy(c1, application("app", 2, 6))
	assert.NilError(t, err)
	assert.Equal(t, done, "ok", problems)
	c2, _ := newController(t, server.NewClient(), "c2")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go c1.DrainHost(ctx, "h2", quiet) //nolint:errcheck // it is left in the middle
	await(t, func() bool {
		for _, a := range c1.view("app").Assignments {
			if a.Replaces != "" {
				return true
			}
		}
		return false
	})
	stop()
	c2.awaitLead(t)
	await(t, func() bool { return c2.inOrder("app", 12, "h2") })
	h, err := c2.Host(t.Context(), "h2")
	assert.NilError(t, err)
	assert.Equal(t, h.State, record.HostDraining)
}

func TestWhatCannotLeaveIsToldAndARemovalOfItsHostRefused(t *testing.T) {
	client := storetest.Start(t)
	c, _ := newController(t, client, "c1")
	playAgents(t, client, "h1", "h2")
	c.awaitLead(t)
	app := application("app", 1, 2)
	app.Entities[0].Service.Mounts = []model.Mount{{Type: model.MountBind, Source: "/data", Target: "/data"}}
	done, problems, err := deploy(c, app)
	assert.NilError(t, err)
	assert.Equal(t, done, "ok", problems)
	ctx, cancel := context.WithCancel(t.Context())
	told := ""
	err = c.DrainHost(ctx, "h2", func(p api.Progress) error {
		if p.Step != nil && p.Step.Action == "wait" {
			told = p.Step.Cause
			cancel()
		}
		return nil
	})
	cancel()
	assert.ErrorIs(t, err, context.Canceled)
	assert.Assert(t, strings.Contains(told, "/data"), told)
	_, err = c.EnableHost(t.Context(), "h2")
	assert.NilError(t, err)
	assert.ErrorContains(t, c.RemoveHost(t.Context(), "h2", false, quiet), "cannot be emptied")
	h, err := c.Host(t.Context(), "h2")
	assert.NilError(t, err)
	assert.Equal(t, h.State, record.HostActive)
}
