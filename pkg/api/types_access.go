package api

import (
	"time"

	"clocker.io/clocker/pkg/record"
)

// Paths about people, tokens and certificates.
//
//	POST   /v1/join/host        HostJoin → HostCredentials      without a certificate
//	POST   /v1/join/user        UserJoin → UserCredentials      without a certificate
//	POST   /v1/renew            RenewRequest → Renewal          users and hosts
//	POST   /v1/tokens           TokenRequest → IssuedToken
//	GET    /v1/tokens           → []record.Token, without hashes
//	DELETE /v1/tokens/{token}
//	GET    /v1/users            → []record.User
//	GET    /v1/users/{user}     → record.User
//	DELETE /v1/users/{user}     takes a user's rights away at once
//	GET    /v1/audit?follow=1&since=T&user=NAME → stream of record.AuditEntry

// TokenProof shows that its sender has a token.
type TokenProof struct {
	ID     string `json:"id"`
	Secret string `json:"secret"`
	// Fingerprint is that of the authority that the token pins: a token of
	// another fleet is told from one that is used up.
	Fingerprint string `json:"fingerprint"`
}

// HostJoin asks for a place in the fleet for the machine that sends it.
type HostJoin struct {
	Token TokenProof  `json:"token"`
	Host  HostRequest `json:"host"`
}

// UserJoin asks for a certificate of the user that the token is for.
type UserJoin struct {
	Token TokenProof `json:"token"`
	// CSR is a PEM certificate request for the key made for the user.
	CSR string `json:"csr"`
}

// UserCredentials is what a user needs to call the API.
type UserCredentials struct {
	Fleet       string   `json:"fleet"`
	User        string   `json:"user"`
	Role        string   `json:"role"`
	Apps        []string `json:"apps,omitempty"`
	CA          string   `json:"ca"`
	Certificate string   `json:"certificate"`
	Controllers []string `json:"controllers"`
}

// RenewRequest asks for another certificate of whoever sends it.
type RenewRequest struct {
	CSR string `json:"csr"`
}

// Renewal is a new certificate, and what else may have changed since the last.
type Renewal struct {
	CA          string   `json:"ca"`
	Certificate string   `json:"certificate"`
	Controllers []string `json:"controllers"`
}

// TokenRequest asks for a token.
type TokenRequest struct {
	// Kind is "host" or "user".
	Kind string `json:"kind"`
	// User, Role and Apps are of a user's token.
	User string   `json:"user,omitempty"`
	Role string   `json:"role,omitempty"`
	Apps []string `json:"apps,omitempty"`
	// Labels are given to the host that joins.
	Labels map[string]string `json:"labels,omitempty"`
	// TTL is how long it is good; 0 means a day.
	TTL time.Duration `json:"ttl,omitempty"`
}

// IssuedToken is a token; its text is shown this once.
type IssuedToken struct {
	record.Token
	Text string `json:"text"`
}

// TrustHeader of an answer tells a user's program which authority the fleet has
// now: the fingerprint of the one that signs, and how many are trusted. When it
// is not what the program knows, its certificate wants to be renewed.
const TrustHeader = "Clocker-Trust"
