package policy

import (
	"clocker.io/clocker/netplugin/nft"
	"clocker.io/clocker/netplugin/segment"
)

// A bridged network has a bridge on each host. Frames between its containers
// come by here where the host has bridges' frames filtered, and seem to come
// from the bridge and to go to it, whichever ports they take. Who may send
// them is seen to before, by package bridged; here the bridge stands for all
// of the network's endpoints.

// setBridged holds each bridge twice: frames from one to the same stay in
// their network.
const setBridged = "bridged"

func bridgedSets() []nft.Set {
	return []nft.Set{{Name: setBridged, Key: []string{"ifname", "ifname"}}}
}

// bridgedElements are the elements of [setBridged].
func bridgedElements(networks []Network) []nft.Element {
	var all []nft.Element
	for _, n := range networks {
		if n.Bridge != "" {
			all = append(all, nft.Element{Set: setBridged, Key: []string{n.Bridge, n.Bridge}})
		}
	}
	return all
}

// bridgeElements lead from a network's bridge to the network's rules.
func bridgeElements(n Network) []nft.Element {
	if n.Bridge == "" {
		return nil
	}
	return []nft.Element{
		{Set: setLeave, Key: []string{n.Bridge}, Data: []string{"goto " + leaveChain(n.ID)}},
		{Set: setEnter, Key: []string{n.Bridge}, Data: []string{"goto " + enterChain(n.ID)}},
	}
}

// fromBridges are the rules for what comes from bridges' ports.
func fromBridges() []nft.Chain {
	rules := []nft.Rule{{nft.Destination(loopbackNet), nft.Drop()}}
	for _, a := range metadata {
		rules = append(rules, nft.Rule{nft.Destination(a.String()), nft.Drop()})
	}
	return []nft.Chain{{Name: "frames", Rules: rules}}
}

// fromLink matches what comes from endpoints' links, and not from bridges.
func fromLink() nft.Rule {
	return nft.Rule{nft.InLink(segment.LinkPrefix), nft.NotInLink(segment.BridgePrefix)}
}
