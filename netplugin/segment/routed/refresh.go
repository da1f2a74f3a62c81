package routed

// Refresh makes Run ask the carriers for their ways again soon, and compare
// everything with the kernel.
func (s *Segment) Refresh() { s.again() }
