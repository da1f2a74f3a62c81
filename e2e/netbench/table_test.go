package netbench

import (
	"math"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// A round in which everything was slow counts for no contender.
func TestRatioIsOfRounds(t *testing.T) {
	row, lower := Row{Name: "speed", Scale: 1}, Row{Name: "time", Scale: 1, Lower: true}
	tb := Table{}
	for _, v := range []float64{10, 1, 12} {
		tb.Add("ours", "speed", 2*v)
		tb.Add("theirs", "speed", v)
		tb.Add("ours", "time", v)
		tb.Add("theirs", "time", 3*v)
	}
	assert.Equal(t, tb.Ratio("ours", "theirs", row), 2.0)
	assert.Equal(t, tb.Ratio("ours", "theirs", lower), 3.0)
	assert.Assert(t, math.IsNaN(tb.Ratio("ours", "nobody", row)))
}

func TestQuantile(t *testing.T) {
	assert.Equal(t, Quantile([]float64{3, 1, 2}, 0.5), 2.0)
	assert.Equal(t, Quantile([]float64{4, 1, 2, 3}, 0.5), 2.5)
	assert.Equal(t, Quantile([]float64{3, 1, 2}, 0.99), 3.0)
	assert.Assert(t, math.IsNaN(Quantile(nil, 0.5)))
}

func TestPrint(t *testing.T) {
	tb := Table{Contenders: []string{"ours", "theirs", "absent"}, Rows: []Row{{Name: "speed", Unit: "Gbit/s", Scale: 1e-9}}}
	tb.Add("ours", "speed", 30e9)
	tb.Add("theirs", "speed", 20e9)
	var b strings.Builder
	assert.NilError(t, tb.Print(&b, "theirs"))
	var lines []string
	for line := range strings.Lines(b.String()) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	assert.DeepEqual(t, lines, []string{"ours theirs absent", "speed, Gbit/s 30 20 -", "times theirs 1.5 1 -"})
}
