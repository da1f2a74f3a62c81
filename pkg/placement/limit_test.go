package placement

import (
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/model"
)

// The engine refuses a limit above the CPUs that there are, so placement does.
func TestCPULimitAboveTheHostsCPUs(t *testing.T) {
	hosts := []Host{
		{ID: "1", Name: "h1", Up: true, Capacity: model.Amounts{NanoCPUs: 2e9}},
		{ID: "2", Name: "h2", Up: true, Capacity: model.Amounts{NanoCPUs: 4e9}},
		{ID: "3", Name: "h3", Up: true, Cordoned: true}, // how many it has is not known
	}
	r := Request{App: "a", Service: "web", Slot: 1}
	r.Resources.Limit.NanoCPUs = 35e8
	small := r
	small.Resources.Limit.NanoCPUs = 2e9
	ds := NewFleet(Policy{}, hosts).Place([]Request{r, small})
	assert.Equal(t, ds[0].Host, "2")
	assert.Equal(t, ds[1].Host, "1", "it is another class")
	r.Resources.Limit.NanoCPUs = 8e9
	d := NewFleet(Policy{}, hosts).Place([]Request{r})[0]
	assert.Equal(t, d.Host, "")
	assert.Equal(t, d.Refusals[0].Filter, "cpu-limit")
	assert.Equal(t, d.Refusals[0].Reason, "the limit of 8 CPUs is more than the 2 that it has")
	hosts[2].Cordoned = false
	assert.Equal(t, NewFleet(Policy{}, hosts).Place([]Request{r})[0].Host, "3", "what is not known refuses nobody")
}
