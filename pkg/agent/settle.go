package agent

import (
	"sort"

	"clocker.io/clocker/pkg/engine"
	"clocker.io/clocker/pkg/record"
)

// netVerb is what is done about a network.
type netVerb string

const (
	netMake   netVerb = "make"   // make the Docker network on this host
	netRemove netVerb = "remove" // take the Docker network away from this host
	netName   netVerb = "name"   // tell the fleet a name that only this engine knows
	netGone   netVerb = "gone"   // a user removed it here: remove it from the fleet, or make it again
)

// netAction is one thing to do about a network, with its cause.
type netAction struct {
	Verb netVerb
	// ID is the fleet's id of the network.
	ID string
	// Docker is the engine's network; its zero value for make and gone.
	Docker engine.Network
	Reason string
}

// netView is everything that decisions about networks rest on.
type netView struct {
	Records map[string]record.Network
	Docker  []engine.Network
	// Wanted are the networks that this host's assignments need.
	Wanted map[string]bool
	// Complete says that Wanted and Records hold everything.
	Complete bool
	// Removed are networks that were in etcd and are no more.
	Removed map[string]bool
	// ByHand are networks that a user removed from this engine.
	ByHand map[string]bool
}

// settle decides which networks this host must have.
//
//   - An application's network is here while an assignment needs it. It is made
//     when the first container is, and removed after the last assignment.
//   - A network made by hand is on every host under the same name, subnet and
//     id, as soon as its name is known.
//   - A network removed by hand with docker network rm is removed from the
//     fleet; but while other
//     hosts have containers on it, it is made again here, since that is what
//     the engine does for one that is in use: it refuses.
func settle(v netView) []netAction {
	var out []netAction
	here := map[string]bool{}
	for _, n := range v.Docker {
		id := fleetID(n, v.Records)
		if id == "" {
			continue
		}
		here[id] = true
		r, known := v.Records[id]
		byAgent := n.Labels[engine.LabelNetwork] != ""
		switch {
		case !known && (v.Removed[id] || byAgent && v.Complete):
			out = append(out, netAction{netRemove, id, n, "the fleet has no such network any more"})
		case known && r.Name == "" && !byAgent:
			out = append(out, netAction{netName, id, n, "made by hand on this host"})
		case known && r.App != "" && byAgent && v.Complete && !v.Wanted[id]:
			out = append(out, netAction{netRemove, id, n, "no assignment of this host needs it"})
		}
	}
	for id, r := range v.Records {
		switch {
		case here[id] || r.App != "" || r.Name == "":
		case v.ByHand[id]:
			out = append(out, netAction{netGone, id, engine.Network{}, "removed by hand on this host"})
		default:
			out = append(out, netAction{netMake, id, engine.Network{}, "made by hand on another host"})
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID < out[j].ID })
	return out
}

// fleetID finds the fleet's id of an engine's network: by what the network
// says, else by a subnet of either family, which no two networks of a fleet
// share.
func fleetID(n engine.Network, records map[string]record.Network) string {
	if n.FleetID != "" {
		return n.FleetID
	}
	for id, r := range records {
		for _, s := range n.Subnets {
			if s == r.Subnet || s == r.Subnet6 {
				return id
			}
		}
	}
	return ""
}
