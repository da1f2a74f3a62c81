package sketch

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"clocker.io/clocker/pkg/api"
)

// Node is one thing in a drawing with what belongs to it.
type Node struct {
	// Kind is "network", "host", "service", "replica", "container",
	// "machine", "address" or "rule".
	Kind string `json:"kind"`
	Name string `json:"name"`
	// Facts follow the name.
	Facts []string `json:"facts,omitempty"`
	// State is "ok", "waiting" or "failed".
	State string `json:"state"`
	// Parts are what belongs to it.
	Parts []Node `json:"parts,omitempty"`
}

// The states of a node.
const (
	OK      = "ok"
	Waiting = "waiting"
	Failed  = "failed"
)

// Topology says which host, endpoint and rule belong to a network.
func Topology(n api.NetworkDetail) Node {
	top := Node{Kind: "network", Name: cmp.Or(n.Name, n.ID), State: OK, Facts: networkFacts(n)}
	for _, h := range n.On {
		// An application's network is only where the application is.
		if n.App == "" || h.Present || h.Attached || h.Error != "" || slices.ContainsFunc(n.InUse, func(e api.NetworkEndpoint) bool { return e.Host == h.Name }) {
			top.Parts = append(top.Parts, host(n, h))
		}
	}
	for _, v := range n.VIPs {
		top.Parts = append(top.Parts, service(n, v))
	}
	for _, r := range n.Rules {
		top.Parts = append(top.Parts, rule(n, r))
	}
	return top
}

func networkFacts(n api.NetworkDetail) []string {
	var facts []string
	for _, s := range []string{n.Subnet, n.Subnet6} {
		if s != "" {
			facts = append(facts, s)
		}
	}
	if n.Driver != "" {
		facts = append(facts, "driver "+n.Driver)
	} else {
		facts = append(facts, n.Segment, "carrier "+n.Carrier)
	}
	facts = append(facts, fmt.Sprintf("MTU %d", n.MTU))
	if n.Internal {
		facts = append(facts, "internal")
	}
	if n.Unfiltered {
		facts = append(facts, "open to all")
	}
	if n.App != "" {
		facts = append(facts, "of application "+n.App)
	}
	return facts
}

func host(n api.NetworkDetail, h api.NetworkHost) Node {
	x := Node{Kind: "host", Name: h.Name, Facts: []string{h.Address}, State: OK}
	switch {
	case !h.Up:
		x.State, x.Facts = Failed, append(x.Facts, "does not answer")
	case h.Error != "":
		x.State, x.Facts = Failed, append(x.Facts, h.Error)
	case !h.Present:
		x.State, x.Facts = Waiting, append(x.Facts, "has not made the network yet")
	}
	var blocks []string
	for _, b := range n.Blocks {
		if b.Host == h.Name {
			blocks = append(blocks, b.CIDR)
		}
	}
	if len(blocks) > 3 {
		blocks = append(blocks[:2], fmt.Sprintf("%d more", len(blocks)-2))
	}
	if len(blocks) > 0 {
		x.Facts = append(x.Facts, "hands out "+strings.Join(blocks, ", "))
	}
	for _, e := range n.InUse {
		if e.Host == h.Name {
			x.Parts = append(x.Parts, endpoint(e, h))
		}
	}
	return x
}

func endpoint(e api.NetworkEndpoint, h api.NetworkHost) Node {
	x := Node{Kind: "container", Name: e.Address, Facts: []string{cmp.Or(e.Container, "container of no known name")}, State: OK}
	switch {
	case e.Machine:
		x.Kind, x.Facts = "machine", []string{"the machine itself"}
	case e.App != "":
		x.Kind, x.Facts = "replica", []string{e.Container, "of " + e.Service + "." + e.App}
		if !e.Healthy {
			x.State, x.Facts = Waiting, append(x.Facts, "gets no connections: not running or not healthy")
		}
	}
	if !h.Up {
		x.State = Failed
	}
	return x
}

func service(n api.NetworkDetail, v api.NetworkService) Node {
	x := Node{Kind: "service", Name: strings.Join(v.Addresses, ", "), Facts: []string{"service " + v.Service + "." + v.App}, State: OK}
	var to []string
	for _, e := range n.InUse {
		if e.App == v.App && e.Service == v.Service && e.Healthy {
			to = append(to, e.Address)
		}
	}
	if len(to) == 0 {
		x.State, x.Facts = Failed, append(x.Facts, "leads to no replica")
		return x
	}
	x.Facts = append(x.Facts, "leads to "+strings.Join(to, ", "))
	return x
}

func rule(n api.NetworkDetail, r api.Rule) Node {
	what := cmp.Or(r.Protocol, "everything")
	if r.Port != 0 {
		what = fmt.Sprintf("%s port %d", r.Protocol, r.Port)
	}
	x := Node{Kind: "rule", Name: "open to " + r.FromName, Facts: []string{what, "rule " + r.ID}, State: OK}
	if r.From == n.ID {
		x.Name = "may reach " + r.ToName
	}
	return x
}
