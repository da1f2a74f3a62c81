// Package engine is what the agent asks of the Docker Engine on its host, in
// the fleet's own terms: containers from a [record.ContainerSpec], images that
// must be there, networks of the clocker driver, the stream of events, logs
// and commands in containers. It works with every engine from API 1.41 (Docker
// 20.10) on.
//
// It keeps nothing and decides nothing: every call is one or two calls of the
// engine, and the caller says what to make and what to take away.
//
// Design page: docs/design/agent.md.
package engine
