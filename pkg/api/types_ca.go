package api

import "time"

// Paths about the fleet's authority.
//
//	GET  /v1/ca   → CA
//	POST /v1/ca   CARequest → CA

// CA is the fleet's certificate authority.
type CA struct {
	Authorities []Authority `json:"authorities"`
	// Stage is "trust", "issue", "serve" or "drop" while the authority is being
	// changed, and empty otherwise; Waits say what the change waits for.
	Stage string   `json:"stage,omitempty"`
	Waits []string `json:"waits,omitempty"`
	// Back says that the change is being taken back, Finish that it waits
	// neither for hosts that are away nor for users.
	Back   bool      `json:"back,omitempty"`
	Finish bool      `json:"finish,omitempty"`
	By     string    `json:"by,omitempty"`
	Began  time.Time `json:"began,omitzero"`
	// Bearers are those who have certificates of it.
	Bearers []CABearer `json:"bearers"`
}

// Authority is a certificate that the fleet trusts.
type Authority struct {
	// Fingerprint is the SHA-256 of the certificate, ID that of its key by
	// which bearers name it; both in hexadecimal.
	Fingerprint string    `json:"fingerprint"`
	ID          string    `json:"id"`
	From        time.Time `json:"from"`
	Until       time.Time `json:"until"`
	// Signs says that new certificates of hosts and users are of it, Serves
	// that those of controllers are.
	Signs  bool `json:"signs,omitempty"`
	Serves bool `json:"serves,omitempty"`
}

// CABearer is a host, controller or user with the certificate that was given
// last.
type CABearer struct {
	// Kind is "host", "controller" or "user".
	Kind string `json:"kind"`
	Name string `json:"name"`
	// Authority is the ID of the one that has signed; empty when not known.
	Authority string    `json:"authority,omitempty"`
	Until     time.Time `json:"until,omitzero"`
	Away      bool      `json:"away,omitempty"`
	// Lags says why a change of the authority waits for it; after the change,
	// how a bearer comes back whose certificate is refused.
	Lags string `json:"lags,omitempty"`
}

// What is asked for about the authority.
const (
	CARotate = "rotate" // begin a change, or say where the one under way is
	CAFinish = "finish" // wait for users and for hosts that are away no more
	CAAbort  = "abort"  // take the change back
)

// CARequest asks for a change of the authority; Action is one of the constants.
type CARequest struct {
	Action string `json:"action"`
}
