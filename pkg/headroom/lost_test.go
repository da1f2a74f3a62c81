package headroom

import (
	"strings"
	"testing"
	"time"

	"clocker.io/clocker/pkg/placement"
	"clocker.io/clocker/pkg/record"

	"gotest.tools/v3/assert"
)

func TestWhichLostHostsAreGivenBack(t *testing.T) {
	long := noon.Add(-time.Hour)
	fleet := func() Snapshot {
		s := Snapshot{Now: noon, Began: long, Hosts: fleetOf(4, 0)}
		s.Hosts[3].Machine, s.Hosts[3].Up, s.Hosts[3].LostSince = "m", false, noon.Add(-11*time.Minute)
		return s
	}
	for name, c := range map[string]struct {
		change func(*Snapshot)
		kept   string // "" when it goes, "-" when nothing is said of it
	}{
		"lost for long":       {func(*Snapshot) {}, ""},
		"not for long":        {func(s *Snapshot) { s.Hosts[3].LostSince = noon.Add(-9 * time.Minute) }, "given back in 1m"},
		"a new leader":        {func(s *Snapshot) { s.Began = noon.Add(-time.Minute) }, "given back in 9m"},
		"a longer time":       {func(s *Snapshot) { s.Policy.LostDelay = time.Hour }, "given back in 49m"},
		"a shorter time":      {func(s *Snapshot) { s.Policy.LostDelay = time.Second }, ""},
		"never":               {func(s *Snapshot) { s.Policy.LostDelay = -1 }, "-"},
		"suspended":           {func(s *Snapshot) { s.Policy.Suspended = true }, "suspended"},
		"a user's own":        {func(s *Snapshot) { s.Hosts[3].Machine = "" }, "-"},
		"on its way out":      {func(s *Snapshot) { s.Hosts[3].Leaving = true }, "-"},
		"with data":           {func(s *Snapshot) { s.Hosts[3].Tasks = make([]placement.Task, 2) }, "2 replicas wait for it to be back"},
		"with data, as told":  {func(s *Snapshot) { s.Hosts[3].Tasks, s.Policy.LostWithData = make([]placement.Task, 2), true }, ""},
		"two of four at once": {func(s *Snapshot) { s.Hosts[2].Up, s.Hosts[2].LostSince = false, long }, "2 of 4 hosts are lost at once"},
		"none is up any more": {func(s *Snapshot) { s.Hosts = s.Hosts[3:] }, "all hosts are lost at once"},
		"two of many at once": {func(s *Snapshot) {
			s.Hosts = append(fleetOf(8, 0), s.Hosts[3])
			s.Hosts[0].Machine, s.Hosts[0].Up, s.Hosts[0].LostSince = "", false, long
		}, ""},
		"one of two":           {func(s *Snapshot) { s.Hosts = s.Hosts[2:] }, ""},
		"without its provider": {func(s *Snapshot) { s.Policy = record.HeadroomPolicy{Count: 1} }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := fleet()
			c.change(&s)
			d, _ := Decide(s, History{})
			switch c.kept {
			case "":
				assert.Equal(t, len(d.Lost), 1, "%v", d.Kept)
			case "-":
				assert.Equal(t, len(d.Lost)+len(d.Kept), 0)
			default:
				assert.Equal(t, len(d.Lost), 0)
				assert.Assert(t, strings.Contains(d.Kept[0].Why, c.kept), d.Kept[0].Why)
			}
			if strings.Contains(c.kept, "given back in") {
				assert.Assert(t, d.Recheck.After(s.Now), "it is looked at again")
			}
		})
	}
}
