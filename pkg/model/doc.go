// Package model holds the one application model of docker clocker: what a
// compose file and a blueprint both become before anything is planned.
//
// An [Application] is a tree of entities. A compose service and a blueprint's
// docker: service are entities of kind "service" whose members are replicas;
// clusters and applications within applications are entities of kind "group".
// Values may be waits on other entities ([Value]), so a blueprint can be
// stored before what it waits for exists.
//
// The package is pure: it imports nothing that does I/O, has no clock and no
// globals. Front ends (pkg/compose, pkg/blueprint) fill it and record where in
// the user's file each part came from; pkg/plan and pkg/placement read it.
//
// Design page: docs/design/model.md.
package model
