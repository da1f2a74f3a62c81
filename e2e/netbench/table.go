package netbench

import (
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
)

// Row is one measure: what its figures are called and how they are compared.
type Row struct {
	Name string
	Unit string
	// Scale is what figures are multiplied with to be in the unit.
	Scale float64
	// Lower says that less is better, as with times.
	Lower bool
}

// Table gathers samples by contender and row. It is not safe for concurrent
// use.
type Table struct {
	Contenders []string
	Rows       []Row
	samples    map[[2]string][]float64
}

// Add takes a sample in.
func (t *Table) Add(contender, row string, figure float64) {
	if t.samples == nil {
		t.samples = map[[2]string][]float64{}
	}
	k := [2]string{contender, row}
	t.samples[k] = append(t.samples[k], figure)
}

// Median is the median of a contender's samples, NaN without any.
func (t *Table) Median(contender, row string) float64 {
	return Quantile(t.samples[[2]string{contender, row}], 0.5)
}

// Samples are a contender's samples in the order they were taken.
func (t *Table) Samples(contender, row string) []float64 {
	return t.samples[[2]string{contender, row}]
}

// Ratio says how many times better a contender is than another: the median of
// the ratios of samples taken in the same round, so that what slows a whole
// round down counts for neither. NaN when there is nothing to compare.
func (t *Table) Ratio(contender, other string, row Row) float64 {
	a, b := t.Samples(contender, row.Name), t.Samples(other, row.Name)
	var ratios []float64
	for i := range min(len(a), len(b)) {
		if row.Lower {
			ratios = append(ratios, b[i]/a[i])
		} else {
			ratios = append(ratios, a[i]/b[i])
		}
	}
	return Quantile(ratios, 0.5)
}

// Quantile is the value below which the share of the samples is; NaN without
// samples.
func Quantile(samples []float64, share float64) float64 {
	if len(samples) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(samples))
	if n := len(s); share == 0.5 && n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[min(len(s)-1, int(share*float64(len(s))))]
}

// Print writes medians, and beneath each how many times better than each of
// the bases its contender is.
func (t *Table) Print(w io.Writer, bases ...string) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(tw, "\t")
	for _, c := range t.Contenders {
		fmt.Fprintf(tw, "%s\t", c)
	}
	fmt.Fprintln(tw)
	for _, r := range t.Rows {
		fmt.Fprintf(tw, "%s, %s\t", r.Name, r.Unit)
		for _, c := range t.Contenders {
			fmt.Fprintf(tw, "%s\t", number(t.Median(c, r.Name)*r.Scale))
		}
		fmt.Fprintln(tw)
		for _, b := range bases {
			fmt.Fprintf(tw, "times %s\t", b)
			for _, c := range t.Contenders {
				fmt.Fprintf(tw, "%s\t", number(t.Ratio(c, b, r)))
			}
			fmt.Fprintln(tw)
		}
	}
	return tw.Flush()
}

func number(v float64) string {
	switch {
	case math.IsNaN(v):
		return "-"
	case math.Abs(v) >= 1000:
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}
