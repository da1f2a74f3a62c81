// Package finding says how something that looks after a part of a host tells
// what is wrong with it: what `docker clocker doctor` shows and mends.
//
// It finds and mends nothing itself.
//
// Design page: docs/design/networks.md.
package finding

// Finding is one thing that is not as it must be.
type Finding struct {
	// Part is what looked: "routes", "links", "filter", "addresses",
	// "services", "names", "networks", "carrier".
	Part string `json:"part"`
	// Subject names what is wrong: a route's destination, a link, an address,
	// a network.
	Subject string `json:"subject"`
	// Text says what is and what should be, in one sentence without a full
	// stop.
	Text string `json:"text"`
	// Hint says what to do about what cannot be mended; empty when it can.
	Hint string `json:"hint,omitempty"`
	// Fixed says that it has been mended.
	Fixed bool `json:"fixed,omitempty"`
}

// Checker compares what is with what must be, now. With fix it mends what it
// can. The error means that it could not look.
type Checker interface {
	Check(fix bool) ([]Finding, error)
}
