// Package driver answers the engine's volume calls. Design page:
// docs/design/volumes.md.
package driver
