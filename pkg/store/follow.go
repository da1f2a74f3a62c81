package store

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// Change is one step of a followed prefix.
type Change struct {
	// Reset means that Puts are everything there is: what is not among them
	// does not exist. It is true for the first change and after a gap.
	Reset bool
	// Revision is the revision up to which the follower has seen everything.
	// It falls only in a change with Reset: etcd was restored from an older
	// copy.
	Revision int64
	Puts     []Raw
	// Deletes are keys that no longer exist.
	Deletes []string
}

// Raw is a record not decoded yet.
type Raw struct {
	Key      string
	Value    []byte
	Revision int64
	Created  int64
}

// Decode reads a raw record.
func Decode[T any](r Raw) (T, error) {
	var v T
	err := json.Unmarshal(r.Value, &v)
	return v, err
}

func raw(kv *mvccpb.KeyValue) Raw {
	return Raw{string(kv.Key), kv.Value, kv.ModRevision, kv.CreateRevision}
}

// Follow calls f with everything under a prefix and then with each change, in
// order, until ctx ends; f is never called twice at once. Connection losses
// and compactions are bridged: after a gap f gets a change with Reset. It
// returns only ctx's error.
//
// A watch is never taken up again where it broke: the etcd at the other end
// may have been restored from an older copy in between, and then the same
// revision belongs to another history. No etcd can be restored without
// breaking every connection to it, so what followers have is always of one
// history, also where the restored etcd has overtaken their revision.
func (s *Store) Follow(ctx context.Context, prefix string, log *slog.Logger, f func(Change)) error {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		seen, err := s.followOnce(ctx, prefix, f)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if seen {
			wait = 50 * time.Millisecond
		}
		log.Debug("watch broken, starting again", "prefix", prefix, "error", err, "wait", wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// followOnce reads and watches until something breaks; seen reports whether
// the first read came through.
func (s *Store) followOnce(ctx context.Context, prefix string, f func(Change)) (seen bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The stream is there before the first read: had another etcd come between
	// the two, the stream would be broken.
	w, err := s.openWatch(ctx)
	if err != nil {
		return false, err
	}
	readCtx, done := context.WithTimeout(ctx, 5*time.Second)
	r, err := s.client.Get(readCtx, prefix, clientv3.WithPrefix())
	done()
	if err != nil {
		return false, err
	}
	first := Change{Reset: true, Revision: r.Header.Revision}
	for _, kv := range r.Kvs {
		first.Puts = append(first.Puts, raw(kv))
	}
	err = w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: []byte(prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(prefix)), StartRevision: r.Header.Revision + 1,
	}}})
	if err != nil {
		return false, err
	}
	f(first)
	for {
		resp, err := w.Recv()
		if err != nil {
			return true, err
		}
		if err := check(resp, r.Header.ClusterId); err != nil {
			return true, err
		}
		if c := changeOf(resp); len(c.Puts)+len(c.Deletes) > 0 {
			f(c)
		}
	}
}

// openWatch opens a stream of watches. The client's own watches would hide
// that it broke.
func (s *Store) openWatch(ctx context.Context) (pb.Watch_WatchClient, error) {
	return pb.NewWatchClient(s.client.ActiveConnection()).
		Watch(clientv3.WithRequireLeader(ctx), grpc.MaxCallRecvMsgSize(math.MaxInt32))
}

// check says why an answer of a watch does not continue what was read from a
// cluster. Its revision does not tell: a member may lag behind the one that
// was read from.
func check(r *pb.WatchResponse, cluster uint64) error {
	switch {
	case r.CompactRevision != 0:
		return fmt.Errorf("watch etcd: compacted up to revision %d", r.CompactRevision)
	case r.Canceled:
		return fmt.Errorf("watch etcd: %s", r.CancelReason)
	case r.Header.ClusterId != cluster:
		return fmt.Errorf("watch etcd: cluster %x has answered, %x was read", r.Header.ClusterId, cluster)
	}
	return nil
}

// changeOf is what an answer of a watch says. A key may change more than once
// in it: the last wins.
func changeOf(r *pb.WatchResponse) Change {
	c := Change{Revision: r.Header.Revision}
	last := make(map[string]int, len(r.Events))
	for i, e := range r.Events {
		last[string(e.Kv.Key)] = i
	}
	for i, e := range r.Events {
		switch {
		case last[string(e.Kv.Key)] != i:
		case e.Type == mvccpb.DELETE:
			c.Deletes = append(c.Deletes, string(e.Kv.Key))
		default:
			c.Puts = append(c.Puts, raw(e.Kv))
		}
	}
	return c
}
