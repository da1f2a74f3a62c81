package driver

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/pkg/finding"
)

var _ finding.Checker = (*Driver)(nil)

// Check compares the networks and endpoints that engines have told of with
// links, with the fleet, and with the ports that are held.
func (d *Driver) Check(fix bool) ([]finding.Finding, error) {
	gone, err := d.vanished()
	if err != nil {
		return nil, err
	}
	var all []finding.Finding
	for _, e := range gone {
		f := finding.Finding{Part: "networks", Subject: e.ID, Text: fmt.Sprintf("endpoint with %v has no link any more", e.Addresses())}
		if fix {
			unlock := d.exclusive(e.ID)
			d.tearDown(e.ID)
			unlock()
			f.Fixed = true
		}
		all = append(all, f)
	}
	d.mu.Lock()
	networks, endpoints := slices.Collect(maps.Values(d.networks)), slices.Collect(maps.Values(d.endpoints))
	d.mu.Unlock()
	here := map[string]bool{}
	for _, n := range networks {
		if !n.Removed {
			here[n.ID] = true
		}
		all = append(all, d.checkNetwork(n, fix)...)
	}
	for _, e := range endpoints {
		if !here[e.EngineNetwork] && !slices.ContainsFunc(gone, func(x segment.Endpoint) bool { return x.ID == e.ID }) {
			f := finding.Finding{Part: "networks", Subject: e.ID, Text: fmt.Sprintf("endpoint with %v is on a network that the engine has deleted", e.Addresses())}
			if fix {
				unlock := d.exclusive(e.ID)
				d.tearDown(e.ID)
				unlock()
				f.Fixed = true
			}
			all = append(all, f)
		}
	}
	slices.SortFunc(all, func(a, b finding.Finding) int { return strings.Compare(a.Subject, b.Subject) })
	return all, nil
}

func (d *Driver) checkNetwork(n networkState, fix bool) []finding.Finding {
	var known topology.Knowledge
	present := false
	d.Topology.Read(func(t *topology.Topology, k topology.Knowledge) {
		known = k
		_, present = t.Networks[n.Network.ID]
	})
	switch {
	case n.Removed:
		f := finding.Finding{Part: "networks", Subject: n.Network.ID, Text: "the engine has deleted the network, and etcd has not been told yet"}
		if fix && d.settle(n) == nil {
			f.Fixed = true
		} else {
			f.Hint = "it is told as soon as etcd answers"
		}
		return []finding.Finding{f}
	case known == topology.Followed && !present && n.ID != machineNetwork(n.Network.ID):
		return []finding.Finding{{
			Part: "networks", Subject: n.Network.ID, Text: fmt.Sprintf("the network %s is here, but not in the fleet", n.Network.Name),
			Hint: "remove it on this host: docker network rm " + n.ID,
		}}
	}
	return nil
}
