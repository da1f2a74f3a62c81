package matrix

import (
	"testing"

	"gotest.tools/v3/assert"
)

func TestVerdict(t *testing.T) {
	a := Place{Kind: Container, App: "shop", Network: "red", Host: "h1"}
	far := Place{Kind: Container, App: "shop", Network: "red", Host: "h2"}
	sibling := Place{Kind: Container, App: "shop", Network: "green", Host: "h1"}
	other := Place{Kind: Container, App: "bank", Network: "blue", Host: "h1"}
	h1, h2, outside := Place{Kind: Host, Host: "h1"}, Place{Kind: Host, Host: "h2"}, Place{Kind: Outside}
	for _, c := range []struct {
		from, to         Place
		tcp, udp, icmped bool
	}{
		{a, far, true, true, true},
		{a, sibling, false, false, false},
		{a, other, false, false, false},
		{a, h1, false, false, false},
		{a, h2, false, false, false},
		{a, outside, true, true, true},
		{h1, a, false, false, true},
		{h2, a, false, false, false},
		{outside, a, false, false, false},
		{h1, h2, true, true, true},
		{outside, h1, true, true, true},
	} {
		for by, want := range map[Transport]bool{"tcp": c.tcp, "udp": c.udp, "icmp": c.icmped} {
			got, why := Verdict(c.from, c.to, by)
			assert.Equal(t, got, want, "%+v to %+v by %s: %s", c.from, c.to, by, why)
			assert.Check(t, why != "")
		}
	}
}
