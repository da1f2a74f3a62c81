package e2e

import (
	"errors"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/engine/connect"
	"clocker.io/clocker/pkg/fleet"
)

func TestHostsMustComeAndGoWithoutATrace(t *testing.T) {
	for _, engine := range []string{"28", "20"} {
		t.Run("engine "+engine, func(t *testing.T) {
			w := up(t, "host"+engine, engine, 3)
			before := map[string]string{}
			for _, h := range []string{"h2", "h3"} {
				before[h] = w.look(h)
			}
			p, c := w.init(w.tcp("h1"))
			w.states()
			at := map[string]string{"h2": w.ssh("h2"), "h3": w.tcp("h3")}
			start := time.Now()
			hosts, err := fleet.AddHosts(w.ctx, []fleet.AddOptions{
				w.addOptions(p, c, at["h2"]), w.addOptions(p, c, at["h3"]),
			}, w.say)
			assert.NilError(t, err)
			t.Logf("two hosts were added in %s", time.Since(start))
			assert.Equal(t, len(hosts), 2)
			for i, name := range []string{"h2", "h3"} {
				assert.Equal(t, hosts[i].Name, name)
				assert.Equal(t, hosts[i].Status, "ready")
				assert.Equal(t, hosts[i].Endpoint, at[name])
			}
			assert.Equal(t, w.states()["h2/agent"], fleet.Done)

			t.Run("added again, everything must be kept", func(t *testing.T) {
				_, err := fleet.AddHost(w.ctx, w.addOptions(p, c, at["h2"]), w.say)
				assert.NilError(t, err)
				states := w.states()
				for _, s := range []string{"h2/image", "h2/register", "h2/plugin", "h2/agent"} {
					assert.Equal(t, states[s], fleet.Kept, s)
				}
			})
			t.Run("the plain driver name must work", func(t *testing.T) {
				w.exec("h2", "docker", "network", "create", "-d", "clocker", "--ipam-driver", "clocker", "mine")
				assert.Equal(t, w.exec("h2", "docker", "network", "inspect", "-f", "{{.Driver}}", "mine"), "clocker")
			})
			t.Run("a host that others use must be refused", func(t *testing.T) {
				w.exec("h2", "docker", "run", "-d", "--name", "stranger", "--network", "mine", "redis:3")
				err := fleet.RemoveHost(w.ctx, w.removeOptions(p, c, "h2", at["h2"]), w.say)
				assert.ErrorIs(t, err, fleet.ErrInUse)
				assert.ErrorContains(t, err, "stranger (mine)")
				h, err := c.Host(w.ctx, "h2")
				assert.NilError(t, err)
				assert.Equal(t, h.Status, "ready", "a refusal must change nothing")
				w.exec("h2", "docker", "rm", "-f", "-v", "stranger")
				w.exec("h2", "docker", "image", "rm", "redis:3")
			})
			t.Run("a name that is taken must be refused", func(t *testing.T) {
				o := w.addOptions(p, c, at["h3"])
				o.Name = "h2"
				_, err := fleet.AddHost(w.ctx, o, w.say)
				var problems *fleet.Problems
				assert.Assert(t, errors.As(err, &problems), "%v", err)
				assert.Equal(t, len(problems.List), 2, "%v", err) // and the engine has a name already
			})
			for _, h := range []string{"h2", "h3"} {
				start := time.Now()
				assert.NilError(t, fleet.RemoveHost(w.ctx, w.removeOptions(p, c, h, at[h]), w.say))
				t.Logf("%s was removed in %s", h, time.Since(start))
				_, err := c.Host(w.ctx, h)
				assert.ErrorIs(t, err, api.ErrNotFound)
				assert.Equal(t, w.look(h), before[h], h)
				assert.NilError(t, fleet.RemoveHost(w.ctx, w.removeOptions(p, c, h, at[h]), w.say), "removing twice is no error")
				assert.Equal(t, w.look(h), before[h], h)
			}
			t.Run("the host of the controller must be refused", func(t *testing.T) {
				err := fleet.RemoveHost(w.ctx, w.removeOptions(p, c, "h1", w.tcp("h1")), w.say)
				assert.ErrorIs(t, err, fleet.ErrInUse)
			})
		})
	}
}

func TestAHostThatIsGoneMustBeForgottenOnlyByForce(t *testing.T) {
	w := up(t, "gone", "28", 2)
	p, c := w.init(w.tcp("h1"))
	_, err := fleet.AddHost(w.ctx, w.addOptions(p, c, w.ssh("h2")), w.say)
	assert.NilError(t, err)
	assert.NilError(t, w.bed.Host("h2").Kill())
	o := w.options()
	o.Timeout = 2 * time.Second
	_, unreachable := connect.Open(w.ctx, w.ssh("h2"), o)
	assert.Assert(t, unreachable != nil)
	r := fleet.RemoveOptions{Controller: c, Fleet: p.Name, Name: "h2", Unreachable: unreachable}
	err = fleet.RemoveHost(w.ctx, r, w.say)
	assert.ErrorIs(t, err, fleet.ErrUnreachable)
	assert.ErrorContains(t, err, "--force")
	r.Force = true
	assert.NilError(t, fleet.RemoveHost(w.ctx, r, w.say))
	_, err = c.Host(w.ctx, "h2")
	assert.ErrorIs(t, err, api.ErrNotFound)

	t.Run("and join again when it is back", func(t *testing.T) {
		assert.NilError(t, w.bed.Host("h2").Restart(w.ctx))
		_, err := fleet.AddHost(w.ctx, w.addOptions(p, c, w.ssh("h2")), w.say)
		assert.NilError(t, err)
	})
}

func TestAMachineOfAnotherFleetMustBeTakenOverOnlyByForce(t *testing.T) {
	w := up(t, "over", "28", 2)
	p, c := w.init(w.tcp("h1"))
	_, err := fleet.AddHost(w.ctx, w.addOptions(p, c, w.tcp("h2")), w.say)
	assert.NilError(t, err)
	// The fleet goes and nobody tells h2.
	assert.NilError(t, fleet.RemoveHost(w.ctx, fleet.RemoveOptions{Controller: c, Fleet: p.Name, Name: "h2", Force: true}, w.say))
	w.destroy(p, c, w.tcp("h1"))
	p, c = w.init(w.tcp("h1"))
	o := w.addOptions(p, c, w.tcp("h2"))
	_, err = fleet.AddHost(w.ctx, o, w.say)
	var problems *fleet.Problems
	assert.Assert(t, errors.As(err, &problems), "%v", err)
	assert.ErrorContains(t, err, "called demo as well")
	o.Force = true
	h, err := fleet.AddHost(w.ctx, o, w.say)
	assert.NilError(t, err)
	assert.Equal(t, h.Status, "ready")
}

func TestAMachineWhoseEngineIsStoppedIsToldApartFromOneThatIsGone(t *testing.T) {
	w := up(t, "stop", "28", 1)
	assert.NilError(t, w.bed.Host("h1").StopEngine(w.ctx))
	_, err := connect.Open(w.ctx, w.ssh("h1"), w.options())
	assert.Assert(t, connect.IsKind(err, connect.NoEngine), "%v", err)
	assert.ErrorContains(t, err, "SSH works")
	_, err = connect.Open(w.ctx, w.tcp("h1"), w.options())
	assert.Assert(t, connect.IsKind(err, connect.Refused), "%v", err)
	assert.NilError(t, w.bed.Host("h1").StartEngine(w.ctx))
	o := w.options()
	o.KnownHosts = "/dev/null"
	_, err = connect.Open(w.ctx, w.ssh("h1"), o)
	assert.Assert(t, connect.IsKind(err, connect.HostKeyUnknown), "%v", err)
	assert.NilError(t, w.bed.Host("h1").Kill())
	o.Timeout = time.Second
	_, err = connect.Open(w.ctx, w.tcp("h1"), o)
	assert.Assert(t, connect.IsKind(err, connect.NoRoute) || connect.IsKind(err, connect.Timeout), "%v", err)
}
