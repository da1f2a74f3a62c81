package sketch

import (
	"strings"
	"testing"

	"github.com/mattn/go-runewidth"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/trace"
)

func lab() api.NetworkDetail {
	return api.NetworkDetail{
		Network: api.Network{Network: record.Network{ID: "n", Name: "lab", Subnet: "10.208.0.0/20", Segment: "routed", Carrier: "auto", MTU: 1500}},
		On: []api.NetworkHost{
			{Name: "h1", Address: "192.0.2.1", Up: true, Present: true}, {Name: "h2", Address: "192.0.2.2", Up: true}, {Name: "h3", Address: "192.0.2.3"},
		},
		InUse: []api.NetworkEndpoint{{Address: "10.208.0.5", Host: "h1", Container: strings.Repeat("long", 30)}},
		VIPs:  []api.NetworkService{{App: "shop", Service: "db", Addresses: []string{"10.208.0.200"}}},
	}
}

func TestNothingIsWiderThanTheTerminal(t *testing.T) {
	r := trace.Result{From: "a", To: "b", Protocol: "icmp", Hops: []trace.Hop{
		{Kind: "name", State: trace.StateOK, Text: strings.Repeat("words and ", 20)},
		{Kind: "carrier", State: trace.StateBroken, Host: "h1", Text: "down", Hint: strings.Repeat("do this and ", 20)},
	}}
	for width := 24; width < 120; width += 7 {
		s := Style{Width: width}
		lines := s.Tree(Topology(lab()))
		if width > 45 { // narrower, a wrapped hop has no room beside its columns
			lines = append(lines, s.Trace(r)...)
		}
		for _, l := range lines {
			assert.Assert(t, runewidth.StringWidth(l) <= width, "%d columns: %q", width, l)
		}
	}
}

func TestColoursAreOnlyAsked(t *testing.T) {
	plain, coloured := Style{}, Style{Colour: true}
	n := Topology(lab())
	assert.Assert(t, !strings.Contains(strings.Join(plain.Tree(n), ""), "\x1b"))
	lines := coloured.Tree(n)
	assert.Assert(t, strings.Contains(lines[0], green) && strings.Contains(lines[0], blue))
	all := strings.Join(lines, "\n")
	assert.Assert(t, strings.Contains(all, red) && strings.Contains(all, yellow))
}

func TestTopologyShowsHostsThatMatter(t *testing.T) {
	parts := func(n api.NetworkDetail) (got []string) {
		for _, p := range Topology(n).Parts {
			got = append(got, p.Kind+" "+p.Name+" "+p.State)
		}
		return got
	}
	n := lab()
	assert.DeepEqual(t, parts(n), []string{"host h1 ok", "host h2 waiting", "host h3 failed", "service 10.208.0.200 failed"})
	n.App = "shop"
	assert.DeepEqual(t, parts(n), []string{"host h1 ok", "service 10.208.0.200 failed"})
}
