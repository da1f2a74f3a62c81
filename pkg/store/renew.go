package store

import (
	"context"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Renew keeps a lease alive, by asking every interval, until ctx ends or etcd
// says that the lease is no more, which is [ErrNotFound].
//
// It never decides by its own clock that a lease is lost, as the client's own
// keep-alive does: that an answer is late says nothing of the lease, which etcd
// renews when it takes the question, and giving it up would take everything
// away that is on it. A stream without an answer for two intervals is replaced
// by another one, which may reach another member.
func (s *Store) Renew(ctx context.Context, id clientv3.LeaseID, interval time.Duration) error {
	for {
		// Whatever broke a stream, the next one may do better.
		gone, _ := s.renewOnce(ctx, id, interval)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case gone:
			return fmt.Errorf("renew lease %x: %w", int64(id), ErrNotFound)
		}
		t := time.NewTimer(interval / 5)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
}

// renewOnce renews on one stream until it breaks, or has not answered for two
// intervals, or etcd says that the lease is gone.
func (s *Store) renewOnce(ctx context.Context, id clientv3.LeaseID, interval time.Duration) (gone bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := pb.NewLeaseClient(s.client.ActiveConnection()).LeaseKeepAlive(clientv3.WithRequireLeader(ctx))
	if err != nil {
		return false, fmt.Errorf("renew lease: %w", err)
	}
	patience := time.AfterFunc(2*interval, cancel)
	defer patience.Stop()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(id)}); err != nil {
			return false, fmt.Errorf("renew lease: %w", err)
		}
		r, err := stream.Recv()
		if err != nil {
			return false, fmt.Errorf("renew lease: %w", err)
		}
		if r.TTL <= 0 {
			return true, nil
		}
		patience.Reset(2 * interval)
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-tick.C:
		}
	}
}
