package controller

import (
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store/storetest"
)

func TestPulse(t *testing.T) {
	at := func(seconds ...int) (times []time.Time) {
		for _, s := range seconds {
			times = append(times, noon.Add(time.Duration(s)*time.Second))
		}
		return times
	}
	for name, x := range map[string]struct {
		answers []time.Time
		now     int
		steady  time.Duration
	}{
		"never heard of":            {nil, 5, 0},
		"heard of once":             {at(0), 1, time.Second},
		"all along":                 {at(0, 1, 2, 3), 4, 4 * time.Second},
		"another leader of etcd":    {at(0, 1, 6, 7), 8, 8 * time.Second},
		"away and back":             {at(0, 1, 20, 21), 22, 2 * time.Second},
		"away at the moment":        {at(0, 1), 20, 0},
		"silent for a short moment": {at(0, 1), 6, 6 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			var p pulse
			for _, a := range x.answers {
				p.answered(a)
			}
			assert.Equal(t, p.steady(noon.Add(time.Duration(x.now)*time.Second)), x.steady)
		})
	}
}

// A controller that stood by while etcd answered judges as soon as it leads.
func TestNextLeaderJudgesAtOnce(t *testing.T) {
	server := storetest.StartServer(t)
	c1, stop := newController(t, server.NewClient(), "c1")
	c1.awaitLead(t)
	playAgents(t, server.Client(), "h1", "h2", "h3")
	c2, _ := newController(t, server.NewClient(), "c2")
	await(t, func() bool { return c2.pulse.steady(time.Now()) > 0 })
	// As after an hour of standing by.
	c2.pulse.mu.Lock()
	c2.pulse.since = time.Now().Add(-time.Hour)
	c2.pulse.mu.Unlock()
	await(t, func() bool {
		c2.cache.mu.RLock()
		defer c2.cache.mu.RUnlock()
		return len(c2.cache.leases) == 3
	})
	_, err := c1.store.Txn().Delete(c1.store.Keys.HostLease("h2")).Commit(t.Context())
	assert.NilError(t, err)
	stop()
	c2.awaitLead(t)
	led := time.Now()
	await(t, func() bool { return c2.healthOf("h2").State == record.HealthLost })
	if took := time.Since(led); took >= leaderGrace {
		t.Errorf("lost %s after the election", took)
	}
}
