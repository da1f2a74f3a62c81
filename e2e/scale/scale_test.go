package scale

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// TestMain lets this program be etcd and the controllers of a fleet too.
func TestMain(m *testing.M) {
	if played, err := RunRole(); played {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// A small fleet goes through the whole scenario, so that the large one can be
// played at any time.
func TestScenarioOfASmallFleet(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	o := Options{Hosts: 20, Containers: 400, Applications: 4, Followers: 2, Dir: t.TempDir()}
	rows, err := Run(ctx, o, func(r Row) { t.Logf("%s: %.2fs %s", r.Step, r.Took.Seconds(), r.Note) })
	if err != nil {
		log, _ := os.ReadFile(file(o.Dir, "log")) // what there is of it
		t.Logf("%s", log)
	}
	assert.NilError(t, err)
	assert.Assert(t, len(rows) >= 8)
}
