package formatter

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
	"text/template"
	"time"

	"github.com/docker/go-units"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
)

// Headroom renders `docker clocker headroom`: the policy, the room there is,
// and what was decided last.
func Headroom(o Options, h api.Headroom) error {
	switch o.Format {
	case "", "table":
		return headroomText(o, h)
	case "json":
		return json.NewEncoder(o.Out).Encode(h)
	}
	t, err := template.New("").Funcs(template.FuncMap{"json": func(v any) (string, error) {
		b, err := json.Marshal(v)
		return string(b), err
	}}).Parse(o.Format)
	if err != nil {
		return fmt.Errorf("read template: %w", err)
	}
	if err := t.Execute(o.Out, h); err != nil {
		return fmt.Errorf("use template: %w", err)
	}
	_, err = fmt.Fprintln(o.Out)
	return err
}

func headroomText(o Options, h api.Headroom) error {
	var b strings.Builder
	line := func(name, format string, a ...any) { fmt.Fprintf(&b, "%-11s %s\n", name, fmt.Sprintf(format, a...)) }
	line("Headroom:", "%s", state(h))
	line("Kept free:", "%s", kept(h.Policy))
	line("Hosts:", "%s", hostCounts(h))
	if h.Revision > 0 {
		line("Waits:", "%s before it grows, %s before it shrinks", short(h.UpDelay), short(h.DownDelay))
		line("Empty:", "%s", empties(h.Policy))
		line("Lost:", "%s", lost(h))
	}
	line("Decision:", "%s", h.Decision.Reason)
	if len(h.Decision.Rooms) > 0 {
		b.WriteString("\n")
		rooms(&b, h.Decision.Rooms)
	}
	if _, err := io.WriteString(o.Out, b.String()); err != nil {
		return err
	}
	if m := underWay(h.Machines); len(m) > 0 {
		if _, err := fmt.Fprintln(o.Out); err != nil {
			return err
		}
		return Machines(Options{Out: o.Out, NoTrunc: o.NoTrunc, Now: o.Now}, m)
	}
	return nil
}

func state(h api.Headroom) string {
	switch {
	case h.Revision == 0 && h.Providers == 0:
		return "not set, and the fleet has no provider of hosts"
	case h.Revision == 0:
		return "not set: hosts are asked for when a placement is refused, and for nothing else"
	case h.Policy.Suspended:
		return h.Decision.Event + ", suspended"
	}
	return h.Decision.Event
}

func kept(p record.HeadroomPolicy) string {
	var out []string
	if p.Count > 0 {
		out = append(out, fmt.Sprintf("%d containers", p.Count))
	}
	if p.Percent > 0 {
		out = append(out, fmt.Sprintf("%g %% of all containers", math.Round(p.Percent*1e6)/1e4))
	}
	if p.CPU > 0 {
		out = append(out, fmt.Sprintf("%g CPUs", float64(p.CPU)/1e9))
	}
	if p.Memory > 0 {
		out = append(out, units.BytesSize(float64(p.Memory)))
	}
	for _, f := range p.For {
		out = append(out, fmt.Sprintf("room for %d of %s/%s", f.N, f.App, f.Service))
	}
	if len(out) == 0 {
		return "nothing"
	}
	return strings.Join(out, ", ")
}

func hostCounts(h api.Headroom) string {
	d := h.Decision
	out := fmt.Sprintf("%d", d.Hosts)
	if d.Coming > 0 {
		out += fmt.Sprintf(" and %d on the way", d.Coming)
	}
	if h.Revision > 0 {
		out += fmt.Sprintf(", %d wanted", d.Desired)
	}
	switch p := h.Policy; {
	case p.MinHosts > 0 && p.MaxHosts > 0:
		out += fmt.Sprintf(" (%d to %d)", p.MinHosts, p.MaxHosts)
	case p.MinHosts > 0:
		out += fmt.Sprintf(" (at least %d)", p.MinHosts)
	case p.MaxHosts > 0:
		out += fmt.Sprintf(" (at most %d)", p.MaxHosts)
	}
	return out
}

func empties(p record.HeadroomPolicy) string {
	switch {
	case !p.RemoveEmpty:
		return "hosts without containers stay"
	case p.EvenWithStrangers:
		return "hosts without containers of the fleet are removed, also with those of others"
	}
	return "hosts without containers are removed"
}

func lost(h api.Headroom) string {
	switch {
	case h.LostDelay < 0:
		return "machines of lost hosts are kept"
	case h.Policy.LostWithData:
		return "machines of hosts that are lost for " + short(h.LostDelay) + " are given back, also with data that replicas wait for"
	}
	return "machines of hosts that are lost for " + short(h.LostDelay) + " are given back, unless replicas wait for data there"
}

// short is a duration without the zeros at its end: 5m, 1h, 1m30s.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// rooms is a table of each kind of room. The bar's mark is where headroom
// begins.
func rooms(w io.Writer, ds []api.HeadroomRoom) {
	t := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	fmt.Fprintln(t, "ROOM\t\tUSED\tOF\tFREE\tWANTED\tLACKS\tHOSTS")
	for _, d := range ds {
		lacks := "-"
		if d.Needed > 0 {
			lacks = amount(d.Name, d.Needed)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\n", d.Name, bar(d), amount(d.Name, d.Used), amount(d.Name, d.Possible), amount(d.Name, d.Available), amount(d.Name, d.Headroom), lacks, d.Desired)
	}
	_ = t.Flush() // a strings.Builder takes all
}

// amount writes a figure of a kind of room with its unit.
func amount(name string, n int64) string {
	unit := "container"
	switch {
	case name == "cpu":
		return fmt.Sprintf("%g CPUs", float64(n)/1e9)
	case name == "memory" && n < 0:
		return "-" + units.BytesSize(float64(-n))
	case name == "memory":
		return units.BytesSize(float64(n))
	case strings.HasPrefix(name, "for "):
		unit = "replica"
	}
	if n != 1 {
		unit += "s"
	}
	return fmt.Sprintf("%d %s", n, unit)
}

// barWidth is the number of its characters between the brackets.
const barWidth = 20

func bar(d api.HeadroomRoom) string {
	full := int(math.Round(min(1, d.Utilisation) * barWidth))
	mark := int(math.Round(d.High * barWidth))
	var b strings.Builder
	b.WriteString("[")
	for i := range barWidth {
		switch {
		case i == mark && d.Possible > 0:
			b.WriteString("|")
		case i < full:
			b.WriteString("#")
		default:
			b.WriteString(".")
		}
	}
	b.WriteString("]")
	if d.Possible > 0 {
		fmt.Fprintf(&b, " %3.0f %%", d.Utilisation*100)
	}
	return b.String()
}
