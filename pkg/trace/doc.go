// Package trace follows one connection through a fleet, from the name that is
// asked for to the endpoint that answers, and names the first hop that breaks
// it: name, service address, rule, route, carrier, rule on the other host,
// endpoint.
//
// It works on facts that others have collected: what etcd says ([Fleet]) and
// what the hosts on the way say ([hostview.View]). It asks nobody and changes
// nothing.
//
// Design page: docs/design/trace.md.
package trace
