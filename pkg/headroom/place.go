package headroom

import "clocker.io/clocker/pkg/placement"

// place tries placements on hosts, with all that the fleet's rules say.
func place(p placement.Policy, hosts []placement.Host, rs []placement.Request) []placement.Decision {
	return placement.NewFleet(p, hosts).Place(rs)
}

// room is how many more of a request hosts would take.
func room(p placement.Policy, hosts []placement.Host, r placement.Request) int {
	return placement.NewFleet(p, hosts).Room(r)
}
