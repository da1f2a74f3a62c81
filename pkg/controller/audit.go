package controller

import (
	"context"
	"fmt"
	"sort"
	"sync"
	"time"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// auditLife is how long entries are kept, give or take auditRound: those of
	// a round share a lease.
	auditLife  = 90 * 24 * time.Hour
	auditRound = 24 * time.Hour
	// auditRefusals is how many refusals of a round are kept: nobody can fill
	// etcd by asking for what is refused. More are counted in the log.
	auditRefusals = 1000
	// auditWaiting bounds the entries that wait to be written.
	auditWaiting = 4096
)

// auditLog writes down what was asked of this controller.
type auditLog struct {
	mu sync.Mutex // guards the following fields
	// waiting are entries to be written; writing says that somebody does.
	waiting []record.AuditEntry
	writing bool
	// lease is that of this round, which ends at until; refusals counts those
	// kept of it, dropped those that were not.
	lease             clientv3.LeaseID
	until             time.Time
	refusals, dropped int
	refusalsEnd       time.Time
}

// Audit implements [api.AccessBackend].
func (c *Controller) Audit(e record.AuditEntry) string {
	now := c.now()
	if e.ID == "" {
		e.ID = fmt.Sprintf("%020d-%s", now.UnixNano(), newID())
	}
	e.At = now
	l := &c.audit
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.Result == "refused" && !l.admitRefusal(now) {
		if l.dropped++; l.dropped&(l.dropped-1) == 0 { // 1, 2, 4, 8...
			c.log.Warn("refused requests are no longer kept in the audit log today", "dropped", l.dropped, "last", e.From)
		}
		return e.ID
	}
	if len(l.waiting) >= auditWaiting {
		c.log.Error("audit log cannot be written: an entry is lost", "user", e.User, "action", e.Action, "subject", e.Subject, "result", e.Result)
		return e.ID
	}
	l.waiting = append(l.waiting, e)
	if !l.writing {
		l.writing = true
		go c.writeAudit()
	}
	return e.ID
}

func (l *auditLog) admitRefusal(now time.Time) bool {
	if !now.Before(l.refusalsEnd) {
		l.refusals, l.dropped, l.refusalsEnd = 0, 0, now.Add(auditRound)
	}
	l.refusals++
	return l.refusals <= auditRefusals
}

// auditBatch is how many entries are written at once.
const auditBatch = 64

// writeAudit writes what waits until nothing does.
func (c *Controller) writeAudit() {
	for {
		l := &c.audit
		l.mu.Lock()
		batch := l.waiting[:min(len(l.waiting), auditBatch)]
		if len(batch) == 0 {
			l.writing, l.waiting = false, nil
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		if err := c.writeEntries(batch); err != nil {
			c.log.Error("audit log cannot be written", "entries", len(batch), "error", err)
			for _, e := range batch {
				c.log.Error("not in the audit log", "user", e.User, "action", e.Action, "subject", e.Subject, "result", e.Result)
			}
		}
		l.mu.Lock()
		l.waiting = l.waiting[len(batch):]
		l.mu.Unlock()
	}
}

// writeEntries writes entries; the last of one id counts.
func (c *Controller) writeEntries(batch []record.AuditEntry) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	lease, err := c.auditLease(ctx)
	if err != nil {
		return err
	}
	last := map[string]record.AuditEntry{}
	for _, e := range batch {
		last[e.ID] = e
	}
	t := c.store.Txn()
	for id, e := range last {
		t.Put(c.store.Keys.AuditEntry(id), e, clientv3.WithLease(lease))
	}
	_, err = t.Commit(ctx)
	return err
}

// auditLease is called by writeAudit alone, of which one runs at a time.
func (c *Controller) auditLease(ctx context.Context) (clientv3.LeaseID, error) {
	l, now := &c.audit, c.now()
	l.mu.Lock()
	id, until := l.lease, l.until
	l.mu.Unlock()
	if now.Before(until) {
		return id, nil
	}
	r, err := c.etcd.client.Grant(ctx, int64((auditLife+auditRound)/time.Second))
	if err != nil {
		return 0, err
	}
	l.mu.Lock()
	l.lease, l.until = r.ID, now.Add(auditRound)
	l.mu.Unlock()
	return r.ID, nil
}

// auditPage is how many entries are read at once.
const auditPage = 500

// AuditLog implements [api.AccessBackend].
func (c *Controller) AuditLog(ctx context.Context, q api.AuditQuery, send func(record.AuditEntry) error) error {
	prefix := c.store.Keys.Audit()
	from := prefix
	if q.Since != "" {
		at, err := time.Parse(time.RFC3339Nano, q.Since)
		if err != nil {
			return invalid(fmt.Sprintf("since %q is not a time in RFC 3339 form", q.Since))
		}
		from = c.store.Keys.AuditEntry(fmt.Sprintf("%020d", at.UnixNano()))
	}
	give := func(e record.AuditEntry) error {
		if q.User != "" && e.User != q.User {
			return nil
		}
		return send(e)
	}
	if q.Follow {
		return c.followAudit(ctx, from, give)
	}
	end := clientv3.GetPrefixRangeEnd(prefix)
	for {
		r, err := c.etcd.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(auditPage),
			clientv3.WithSort(clientv3.SortByKey, clientv3.SortAscend))
		if err != nil {
			return fmt.Errorf("read audit log: %w", err)
		}
		for _, kv := range r.Kvs {
			e, err := store.Decode[record.AuditEntry](store.Raw{Key: string(kv.Key), Value: kv.Value})
			if err != nil {
				c.log.Warn("entry of the audit log cannot be read", "key", string(kv.Key), "error", err)
				continue
			}
			if err := give(e); err != nil {
				return err
			}
			from = string(kv.Key) + "\x00"
		}
		if !r.More {
			return nil
		}
	}
}

// followAudit sends entries when they have a result, and goes on.
func (c *Controller) followAudit(ctx context.Context, from string, send func(record.AuditEntry) error) error {
	sent := map[string]string{} // results, by id
	var failed error
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	_ = c.store.Follow(ctx, c.store.Keys.Audit(), c.log, func(ch store.Change) {
		sort.Slice(ch.Puts, func(i, j int) bool { return ch.Puts[i].Key < ch.Puts[j].Key })
		for _, raw := range ch.Puts {
			e, err := store.Decode[record.AuditEntry](raw)
			if err != nil || raw.Key < from || sent[e.ID] == e.Result || e.Result == "begun" || failed != nil {
				continue
			}
			sent[e.ID] = e.Result
			if failed = send(e); failed != nil {
				cancel()
			}
		}
		for _, k := range ch.Deletes {
			delete(sent, k[len(c.store.Keys.Audit()):])
		}
	})
	return failed
}
