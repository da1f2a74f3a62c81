package placement

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/strategy"
)

// The quick way by which a group finds its host is the way through the list.
func TestGroupChoosesAsTheListDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "hosts")
		var hosts []Host
		for i := range n {
			hosts = append(hosts, Host{
				ID: fmt.Sprint(i), Name: fmt.Sprint("h", i), Up: true, Labels: map[string]string{"zone": fmt.Sprint(i % 2)},
				Capacity: model.Amounts{NanoCPUs: int64(rapid.IntRange(1, 4).Draw(t, "cpus")) * 1e9},
			})
		}
		f := NewFleet(Policy{}, hosts)
		for i := range rapid.IntRange(1, 20).Draw(t, "requests") {
			r := Request{
				App: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "app"), Service: rapid.SampledFrom([]string{"s", "t"}).Draw(t, "service"),
				Slot: i + 1, Parent: rapid.SampledFrom([]string{"", "p", "q"}).Draw(t, "parent"),
			}
			if rapid.Bool().Draw(t, "stays") {
				r.Prefer = fmt.Sprint(rapid.IntRange(0, n-1).Draw(t, "where"))
			}
			r.Resources.Reserve.NanoCPUs = int64(rapid.IntRange(0, 1).Draw(t, "reserve")) * 1e9
			r.Placement.Strategies = []model.Strategy{{Name: strategy.Group, Exclusive: rapid.Bool().Draw(t, "exclusive")}}
			if rapid.Bool().Draw(t, "bounded") { // after the group
				r.Placement.Strategies = append(r.Placement.Strategies, model.Strategy{Name: strategy.MaxContainers, Containers: 3})
			}
			if rapid.Bool().Draw(t, "spread") {
				r.Placement.Spread = []string{"spread=node.labels.zone"}
			}
			want := ""
			if vs := f.Explain(r); vs[0].Rank == 1 {
				want = vs[0].Host
			}
			d := f.Place([]Request{r})[0]
			got := ""
			if d.Host != "" {
				got = "h" + d.Host
			}
			if got != want {
				t.Fatalf("%+v is placed on %q, and explained as %q", r, got, want)
			}
			if rapid.Bool().Draw(t, "goes") {
				f.RemoveTask(d.Task)
			}
		}
	})
}
