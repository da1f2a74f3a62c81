package controller

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sort"
	"strings"
	"sync"
	"time"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// emit records an event. It is for people to read: one that cannot be written
// is logged and dropped.
func (c *Controller) emit(ctx context.Context, kind, action, subject, text string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	now := c.now()
	e := record.Event{ID: fmt.Sprintf("%020d-%s", now.UnixNano(), newID()), At: now, Type: kind, Action: action, Subject: subject, Text: text}
	go func() {
		defer cancel()
		lease, err := c.events.lease(ctx, c.etcd.client, now)
		if err == nil {
			_, err = c.store.Txn().Put(c.store.Keys.Event(e.ID), e, clientv3.WithLease(lease)).Commit(ctx)
		}
		if err != nil {
			c.log.Warn("event cannot be recorded", "type", kind, "action", action, "subject", subject, "error", err)
		}
	}()
}

// eventLife is how long events are kept, give or take eventRound: those of one
// round share a lease, since each lease costs etcd as much as an event.
const (
	eventLife  = time.Hour
	eventRound = 5 * time.Minute
)

// eventLease is the lease of the events of this round.
type eventLease struct {
	mu    sync.Mutex // guards the following fields
	id    clientv3.LeaseID
	until time.Time
}

func (l *eventLease) lease(ctx context.Context, c *clientv3.Client, now time.Time) (clientv3.LeaseID, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Before(l.until) {
		return l.id, nil
	}
	r, err := c.Grant(ctx, int64((eventLife+eventRound)/time.Second))
	if err != nil {
		return 0, err
	}
	l.id, l.until = r.ID, now.Add(eventRound)
	return l.id, nil
}

// eventLog is the order in which events came in: who follows them keeps its
// place in it, and never looks at what it has seen again. The zero value is
// ready.
type eventLog struct {
	ids []string
	// dropped is how many were before ids; life how often everything was read
	// anew, which ends every place.
	dropped, life int
}

// keepEvents bounds the log: who is further behind looks at all events.
const keepEvents = 100_000

func (l *eventLog) reset() { *l = eventLog{life: l.life + 1} }

func (l *eventLog) add(id string) {
	l.ids = append(l.ids, id)
	if n := len(l.ids) - keepEvents; n > keepEvents/10 {
		l.ids, l.dropped = append([]string(nil), l.ids[n:]...), l.dropped+n
	}
}

// eventPlace is how far a follower is; the zero value is before everything.
type eventPlace struct{ life, next int }

// freshEvents are the events after a place, and the place after them. known
// says that they continue what was before the place; otherwise they are all
// that there are.
func (c *cache) freshEvents(at eventPlace) (fresh []record.Event, next eventPlace, known bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	l := &c.eventLog
	next = eventPlace{l.life, l.dropped + len(l.ids)}
	if at.life == l.life && at.next >= l.dropped {
		for _, id := range l.ids[at.next-l.dropped:] {
			if e, there := c.events[id]; there {
				fresh = append(fresh, e)
			}
		}
		return fresh, next, true
	}
	for _, e := range c.events {
		fresh = append(fresh, e)
	}
	return fresh, next, false
}

// Events implements [api.Backend].
func (c *Controller) Events(ctx context.Context, follow bool, since string, send func(record.Event) error) error {
	changed := c.cache.wakes.subscribe(topicEvents)
	defer changed.end()
	at, sent := eventPlace{}, map[string]bool{}
	for {
		fresh, next, known := c.cache.freshEvents(at)
		at = next
		sort.Slice(fresh, func(i, j int) bool { return fresh[i].ID < fresh[j].ID })
		was := sent
		if !known { // everything comes again: what is gone is remembered no more
			sent = make(map[string]bool, len(fresh))
		}
		for _, e := range fresh {
			sent[e.ID] = true
			if e.ID <= since || !known && was[e.ID] {
				continue
			}
			if err := send(e); err != nil {
				return err
			}
		}
		if !follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed.C:
		}
	}
}

// Agent implements [api.Backend]: it passes a request about a task on to the
// agent of the host that has it, over the agent's own tunnel.
func (c *Controller) Agent(task string, w http.ResponseWriter, r *http.Request) {
	fail := func(status int, text string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprintf(w, "{\"message\":%q}\n", text)
	}
	c.cache.mu.RLock()
	host := c.cache.assignments[task].Value.Host
	if host == "" {
		host = c.cache.observed[task].Host
	}
	name := c.cache.hosts[host].Value.Name
	c.cache.mu.RUnlock()
	if host == "" {
		fail(http.StatusNotFound, "there is no task "+task)
		return
	}
	p := &httputil.ReverseProxy{
		Transport:     c.hub.Transport(host),
		FlushInterval: -1,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: "agent"})
			r.Out.URL.Path = strings.TrimPrefix(r.In.URL.Path, api.Version)
			r.Out.URL.RawPath = ""
			r.Out.Host = "agent"
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) {
			fail(http.StatusBadGateway, fmt.Sprintf("the agent of host %s does not answer: %v", name, err))
		},
	}
	p.ServeHTTP(w, r)
}
