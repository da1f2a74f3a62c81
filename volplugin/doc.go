// Command clocker-vol is the volume plugin of a host: Docker's volume driver
// of this project. Design page: docs/design/volumes.md.
package main
