package topology

import (
	"context"
	"sync"
)

// Mark is the etcd revision up to which a part of the host is as the topology
// said. The zero value is revision 0.
type Mark struct {
	mu       sync.Mutex
	revision int64         // guarded by mu
	reached  chan struct{} // closed at the next revision; nil while nobody waits; guarded by mu
}

// Set moves the mark, and wakes who waits.
func (m *Mark) Set(revision int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.revision = revision
	if m.reached != nil {
		close(m.reached)
		m.reached = nil
	}
}

// Wait waits until the mark is at a revision or beyond, or ctx ends.
func (m *Mark) Wait(ctx context.Context, revision int64) error {
	for {
		m.mu.Lock()
		if m.revision >= revision {
			m.mu.Unlock()
			return nil
		}
		if m.reached == nil {
			m.reached = make(chan struct{})
		}
		next := m.reached
		m.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-next:
		}
	}
}
