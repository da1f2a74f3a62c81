package model

// Writes reports whether a container writes to a mount's data, and it outlives
// the container.
func (m Mount) Writes() bool { return m.Type != MountTmpfs && !m.ReadOnly && m.Source != "" }

// Data says what a service writes to: data that only its host has, and data
// that is the same on every host.
func (s *Service) Data() (own, shared bool) {
	for _, m := range s.Mounts {
		own = own || m.Writes() && !m.Shared
		shared = shared || m.Writes() && m.Shared
	}
	return own, shared
}
