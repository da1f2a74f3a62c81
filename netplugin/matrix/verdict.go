package matrix

// Kind is what a place is.
type Kind string

// The kinds of place.
const (
	Container Kind = "container"
	Host      Kind = "host"
	Outside   Kind = "outside"
)

// Place is somewhere that packets come from or go to.
type Place struct {
	Name string
	Kind Kind
	// App and Network are a container's; Host is the host that it is on, or
	// the host itself.
	App, Network, Host string
}

// Transport is how a pair is tried: "tcp", "udp" or "icmp".
type Transport string

// Transports are all of them.
var Transports = []Transport{"tcp", "udp", "icmp"}

// Verdict says whether a connection from one place to another must get
// through, and why.
func Verdict(from, to Place, by Transport) (allowed bool, why string) {
	switch {
	case from.Kind == Container && to.Kind == Container && from.Network == to.Network:
		return true, "the same network"
	case from.Kind == Container && to.Kind == Container && from.App == to.App:
		return false, "another network of the same application"
	case from.Kind == Container && to.Kind == Container:
		return false, "another application"
	case from.Kind == Container && to.Kind == Host && from.Host == to.Host:
		return false, "its host's own services"
	case from.Kind == Container && to.Kind == Host:
		return false, "another host's own services"
	case from.Kind == Container && to.Kind == Outside:
		return true, "the way out"
	case from.Kind == Host && to.Kind == Container && from.Host == to.Host:
		return by == "icmp", "a host may only ping what is on it"
	case from.Kind == Host && to.Kind == Container:
		return false, "from another host"
	case from.Kind == Outside && to.Kind == Container:
		return false, "from outside, by the right route"
	}
	return true, "nothing of Clocker's"
}
