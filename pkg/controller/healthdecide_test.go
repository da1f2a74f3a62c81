package controller

import (
	"testing"
	"time"

	"clocker.io/clocker/pkg/record"

	"gotest.tools/v3/assert"
	"pgregory.net/rapid"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func TestNextHealth(t *testing.T) {
	at := func(state string, losses ...time.Time) record.HostHealth {
		return record.HostHealth{State: state, Since: noon.Add(-time.Minute), Losses: losses, Reason: "why"}
	}
	ago := func(d time.Duration) time.Time { return noon.Add(-d) }
	long := time.Hour
	for name, x := range map[string]struct {
		s     sight
		state string
		// losses is how many are counted, wake when it is looked at again.
		losses int
		wake   time.Duration
	}{
		"up all the time":                   {sight{Up: true, Steady: long}, "", 0, 0},
		"gone this moment":                  {sight{Steady: long}, record.HealthSuspect, 0, lostAfter},
		"suspect for a while":               {sight{Steady: long, Down: time.Second, Was: at(record.HealthSuspect)}, record.HealthSuspect, 0, lostAfter - time.Second},
		"suspect for long":                  {sight{Steady: long, Down: lostAfter, Was: at(record.HealthSuspect)}, record.HealthLost, 1, 0},
		"suspect and back":                  {sight{Up: true, Steady: long, Was: at(record.HealthSuspect)}, record.HealthReady, 0, 0},
		"lost and still gone":               {sight{Steady: long, Down: long, Was: at(record.HealthLost, ago(time.Minute))}, record.HealthLost, 1, 0},
		"lost and back":                     {sight{Up: true, Steady: long, Was: at(record.HealthLost, ago(time.Minute))}, record.HealthReady, 1, 0},
		"etcd was away until lately":        {sight{Steady: time.Second, Down: time.Second, Was: at(record.HealthSuspect)}, record.HealthSuspect, 0, leaderGrace - time.Second},
		"etcd was away a while ago":         {sight{Steady: leaderGrace, Down: leaderGrace, Was: at(record.HealthSuspect)}, record.HealthLost, 1, 0},
		"seen to go while another one led":  {sight{Steady: long, Down: lostAfter, Was: at("")}, record.HealthLost, 1, 0},
		"most hosts are gone":               {sight{Steady: long, Many: true, Down: lostAfter, Was: at(record.HealthSuspect)}, record.HealthSuspect, 0, manyAfter - lostAfter},
		"most hosts are gone for long":      {sight{Steady: long, Many: true, Down: manyAfter, Was: at(record.HealthSuspect)}, record.HealthLost, 1, 0},
		"back after its last loss but one":  {sight{Up: true, Steady: long, Was: at(record.HealthLost, ago(2*time.Minute), ago(time.Minute))}, record.HealthReady, 2, 0},
		"back after many losses":            {sight{Up: true, Steady: long, Was: at(record.HealthLost, ago(3*time.Minute), ago(2*time.Minute), ago(time.Minute))}, record.HealthQuarantined, 3, flapQuiet},
		"losses from long ago do not count": {sight{Up: true, Steady: long, Was: at(record.HealthLost, ago(time.Hour), ago(2*time.Minute), ago(time.Minute))}, record.HealthReady, 2, 0},
		"quarantined":                       {sight{Up: true, Steady: long, Was: at(record.HealthQuarantined, ago(time.Minute))}, record.HealthQuarantined, 1, flapQuiet - time.Minute},
		"quarantined and gone":              {sight{Steady: long, Was: at(record.HealthQuarantined, ago(time.Minute))}, record.HealthQuarantined, 1, lostAfter},
		"quarantined and gone for long":     {sight{Steady: long, Down: lostAfter, Was: at(record.HealthQuarantined, ago(time.Minute))}, record.HealthLost, 2, 0},
		"quarantined, and etcd was away":    {sight{Up: true, Was: at(record.HealthQuarantined, ago(time.Minute))}, record.HealthQuarantined, 1, flapQuiet - time.Minute},
		"gone, as far as one can know yet":  {sight{Down: 0, Steady: 0}, record.HealthSuspect, 0, leaderGrace},
	} {
		t.Run(name, func(t *testing.T) {
			next, wake := nextHealth(x.s, noon)
			assert.Equal(t, next.State, x.state)
			assert.Equal(t, len(next.Losses), x.losses)
			assert.Equal(t, wake, x.wake)
		})
	}
}

func TestQuarantineEnds(t *testing.T) {
	was := record.HostHealth{State: record.HealthQuarantined, Since: noon.Add(-flapQuiet), Losses: []time.Time{noon.Add(-flapQuiet)}}
	next, wake := nextHealth(sight{Up: true, Steady: time.Hour, Was: was}, noon)
	assert.Equal(t, next.State, record.HealthReady)
	assert.Equal(t, len(next.Losses), 0)
	assert.Equal(t, wake, time.Duration(0))
}

// Whatever a host does: it is lost only after it was suspect and gone for as
// long as it takes, what is there is never suspect or lost, and whoever waits
// for as long as is said is not told to wait for ever.
func TestHealthWhateverAHostDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now, down := noon, time.Duration(0)
		steady := time.Duration(rapid.IntRange(0, 60).Draw(t, "steady")) * time.Second
		var was record.HostHealth
		for range rapid.IntRange(1, 80).Draw(t, "looks") {
			s := sight{Up: rapid.IntRange(0, 2).Draw(t, "up") > 0, Many: rapid.Bool().Draw(t, "many"), Steady: steady, Was: was}
			if s.Up {
				down = 0
			}
			s.Down = down
			next, wake := nextHealth(s, now)
			lost := next.State == record.HealthLost
			switch {
			case s.Up && (lost || next.State == record.HealthSuspect):
				t.Fatalf("it is there and %s", next.State)
			case !s.Up && (next.State == record.HealthReady || next.State == ""):
				t.Fatal("it is gone and ready")
			case lost && was.State != record.HealthLost && (s.Down < lostAfter || steady < leaderGrace || s.Many && s.Down < manyAfter):
				t.Fatalf("lost after %s", s.Down)
			case next.State == record.HealthSuspect && wake <= 0, next.State == record.HealthQuarantined && wake <= 0:
				t.Fatalf("%s for ever", next.State)
			case len(next.Losses) > 40:
				t.Fatal("losses are kept for ever")
			}
			was = next
			step := time.Duration(rapid.IntRange(1, 200).Draw(t, "for")) * 500 * time.Millisecond
			now, steady = now.Add(step), steady+step
			if !s.Up {
				down += step
			}
		}
	})
}
