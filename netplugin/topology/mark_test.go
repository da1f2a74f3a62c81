package topology

import (
	"context"
	"errors"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

func TestMarkWaitsForItsRevision(t *testing.T) {
	var a Mark
	a.Set(3)
	assert.NilError(t, a.Wait(t.Context(), 3))
	done := make(chan error, 1)
	go func() { done <- a.Wait(t.Context(), 5) }()
	a.Set(4)
	select {
	case err := <-done:
		t.Fatalf("revision 5 is not there yet: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	a.Set(6)
	assert.NilError(t, <-done)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	assert.Assert(t, errors.Is(a.Wait(ctx, 7), context.DeadlineExceeded))
}
