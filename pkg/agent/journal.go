package agent

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// eventTTL is how long, in seconds, events are kept.
const eventTTL = 3600

// eventLease is how long one lease takes new events: they share it, so that
// an event costs no lease of its own, and expire up to this much late.
const eventLease = 5 * time.Minute

// maxEvents bounds the events that wait for etcd; the oldest go first.
const maxEvents = 1000

// journal writes the fleet's events. An event may be lost when etcd is away
// for long, or when the agent ends: nothing rests on them.
type journal struct {
	identity
	store *store.Store
	log   *slog.Logger
	now   func() time.Time
	wake  chan struct{}

	mu      sync.Mutex
	waiting []record.Event // guarded by mu
	number  int            // guarded by mu
}

func newJournal(id identity, s *store.Store, log *slog.Logger, now func() time.Time) *journal {
	return &journal{identity: id, store: s, log: log, now: now, wake: make(chan struct{}, 1)}
}

// add implements reporter's event. It fills in the time and an id that sorts
// by it.
func (j *journal) add(e record.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.number++
	e.At = j.now()
	e.ID = fmt.Sprintf("%016x-%s-%06x", e.At.UnixNano(), j.Host, j.number&0xffffff)
	j.waiting = append(j.waiting, e)
	if n := len(j.waiting) - maxEvents; n > 0 {
		j.waiting = append([]record.Event(nil), j.waiting[n:]...)
	}
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

func (j *journal) run(ctx context.Context) {
	var lease clientv3.LeaseID
	var until time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-j.wake:
		}
		// Reports come first; events gather.
		if !pause(ctx, 50*time.Millisecond) {
			return
		}
		for {
			j.mu.Lock()
			batch := j.waiting[:min(len(j.waiting), perWrite)]
			j.mu.Unlock()
			if len(batch) == 0 {
				break
			}
			if lease == 0 || j.now().After(until) {
				lease, until = j.grant(ctx), j.now().Add(eventLease)
			}
			if lease == 0 || !j.write(ctx, batch, lease) {
				lease = 0
				if !pause(ctx, time.Second) {
					return
				}
				continue
			}
			last := batch[len(batch)-1].ID
			j.mu.Lock()
			for i, e := range j.waiting { // some may have been dropped meanwhile
				if e.ID > last {
					j.waiting = j.waiting[i:]
					break
				}
				if i == len(j.waiting)-1 {
					j.waiting = nil
				}
			}
			j.mu.Unlock()
		}
	}
}

func (j *journal) grant(ctx context.Context) clientv3.LeaseID {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	g, err := j.store.Client().Grant(ctx, eventTTL)
	if err != nil {
		j.log.Debug("no lease for events", "error", err)
		return 0
	}
	return g.ID
}

// write puts a batch of events. Repeating it after an unknown outcome does no
// harm: an event's key is its own.
func (j *journal) write(ctx context.Context, batch []record.Event, lease clientv3.LeaseID) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	t := j.store.Txn()
	for _, e := range batch {
		t.Put(j.store.Keys.Event(e.ID), e, clientv3.WithLease(lease))
	}
	if _, err := t.Commit(ctx); err != nil {
		j.log.Debug("events cannot be written", "error", err)
		return false
	}
	return true
}
