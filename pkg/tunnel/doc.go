// Package tunnel lets a controller speak HTTP to agents that have no open
// port. The agent dials every controller with mutual TLS, asks for
// GET /v1/tunnel to be upgraded, and then serves HTTP on the streams that the
// controller opens over that connection. The controller's side is a [Hub]: it
// knows an agent by its certificate and gives a transport, or a bare
// connection, to a host by its id.
//
// Streams are yamux's, in frames of two bytes of length and as much data; a
// length of 0 ends the sender's half. A stream that ends without it was broken
// off: TCP knows that difference, yamux alone does not, and without it an
// agent would go on producing output that nobody reads.
//
// The package carries bytes. What is asked and answered is the caller's.
//
// Design page: docs/design/api.md.
package tunnel
