package routed

import (
	"testing"
	"time"
)

// Settle waits until no link is being removed any more.
func (s *Segment) Settle(t testing.TB) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); <-time.After(5 * time.Millisecond) {
		s.mu.Lock()
		n := len(s.detaching)
		s.mu.Unlock()
		if n == 0 {
			return
		}
	}
	t.Error("links are not removed")
}
