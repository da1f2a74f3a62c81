// Package dnsupdate keeps the names of applications in a zone of somebody else's
// DNS server (BIND, Knot, PowerDNS), by dynamic updates (RFC 2136) signed with
// a key (TSIG, RFC 8945). The controller that leads runs it.
//
// The zone itself is the memory of what was made: each name has a TXT record
// that names the fleet, and the zone is read by transfer (AXFR, RFC 5936)
// before it is compared with what should be there. So it converges however
// long the server or every controller was away. A name without that TXT record
// is somebody else's and is never touched; the server checks this too, in the
// same step as the change, by the update's prerequisites.
//
// It never decides what names there are, and never writes to etcd.
//
// Design page: docs/design/names.md.
package dnsupdate
