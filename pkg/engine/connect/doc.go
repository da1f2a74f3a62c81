// Package connect turns what a user calls an engine by into a client of it:
// unix:///path, tcp://host:port with TLS, ssh://[user@]host[:port], context:NAME
// or nothing at all for the current docker context.
//
// It never sends a request over a connection that it has not checked: plain
// tcp is for loopback alone, certificates and SSH host keys must be known
// beforehand, and nothing is ever added to a user's known_hosts. When a
// connection cannot be made, [Error] says which of the many reasons it was
// and what to do. It changes nothing on either side.
//
// Design page: docs/design/fleet.md.
package connect
