package lb

import (
	"context"
	"time"
)

// Applied waits until connections of this host go where etcd says at the given
// revision, or ctx ends.
func (b *Balancer) Applied(ctx context.Context, revision int64) error {
	return b.applied.Wait(ctx, revision)
}

// routesTime is how long new replicas wait for their routes at most.
const routesTime = 300 * time.Millisecond

// awaitRoutes waits until the host's routes are as they should be: a connection
// that is sent to a replica without a route would fail, one more moment with the
// others does not. mu is held.
func (b *Balancer) awaitRoutes() {
	if b.Routes == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), routesTime)
	defer cancel()
	if err := b.Routes(ctx); err != nil {
		b.Log.Debug("replicas do not wait for their routes", "error", err)
	}
}
