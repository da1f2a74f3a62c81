package api

import (
	"time"

	"clocker.io/clocker/pkg/record"
)

// Paths of placement.
//
//	GET  /v1/applications/{app}/placement?service=S  → []ServicePlacement
//	GET  /v1/policy/placement                        → PlacementPolicy
//	PUT  /v1/policy/placement                        PlacementPolicy → PlacementPolicy

// ServicePlacement is where the replicas of a service are and why, and what
// every host has to say to the next one.
type ServicePlacement struct {
	App     string `json:"app"`
	Service string `json:"service"`
	// Replicas are the wanted ones, by slot.
	Replicas []ReplicaPlacement `json:"replicas"`
	// Next names the replica that Hosts are about: one that has no host, or
	// the one after the last.
	Next string `json:"next"`
	// Missing means that Next is wanted and has no host.
	Missing bool `json:"missing,omitempty"`
	// Hosts are those that fit, the best first, then those that do not.
	Hosts []HostVerdict `json:"hosts"`
}

// ReplicaPlacement is where one replica is.
type ReplicaPlacement struct {
	Name string `json:"name"`
	Slot int    `json:"slot"`
	// Host is empty for a replica that no host takes.
	Host  string `json:"host,omitempty"`
	State string `json:"state"`
	// Reason says why it is there, or that no host takes it; it may be empty
	// for a replica placed by a release from before reasons were kept. Cause
	// says what made it move there: "drain", "rebalance", "lost".
	Reason string    `json:"reason,omitempty"`
	Cause  string    `json:"cause,omitempty"`
	Since  time.Time `json:"since,omitzero"`
}

// HostVerdict is what becomes of a host for a replica: a filter refuses it for
// a reason, or it fits and has a rank, from 1.
type HostVerdict struct {
	Host   string      `json:"host"`
	Rank   int         `json:"rank,omitempty"`
	Filter string      `json:"filter,omitempty"`
	Reason string      `json:"reason,omitempty"`
	Score  []ScorePart `json:"score,omitempty"`
}

// ScorePart is one criterion of a rank; less is better.
type ScorePart struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Text  string  `json:"text"`
}

// PlacementPolicy is the fleet's, with the revision that a change must name;
// 0 means that none was ever set.
type PlacementPolicy struct {
	record.PlacementPolicy
	Revision int64 `json:"revision"`
}
