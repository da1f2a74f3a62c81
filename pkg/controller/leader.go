package controller

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"clocker.io/clocker/pkg/api"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// resignPause is how long a leader that has handed over does not stand again.
const resignPause = 10 * time.Second

// errResigned means that this controller gave its leadership up on purpose.
var errResigned = errors.New("leadership handed over")

// handOver makes this controller stop leading; another one is elected.
func (c *Controller) handOver() {
	select {
	case c.resign <- struct{}{}:
	default:
	}
}

// observeFor keeps track of who leads without standing.
func (c *Controller) observeFor(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	session, err := concurrency.NewSession(c.etcd.client, concurrency.WithTTL(leaderTTL), concurrency.WithContext(ctx))
	if err == nil {
		defer session.Close() //nolint:errcheck // its lease expires by itself otherwise
		c.observeLeader(ctx, concurrency.NewElection(session, c.store.Keys.Election()))
	}
	<-ctx.Done()
}

// leaderTTL is how long a leader that cannot be reached stays leader.
const leaderTTL = 5

// leadership is who leads, as this controller knows.
type leadership struct {
	mu sync.RWMutex // guards the following fields
	// fence is nil unless this controller leads: it holds in a transaction
	// only while this controller's own election stands.
	fence []clientv3.Cmp
	// url is the leader's API; empty when there is none.
	url string
}

func (l *leadership) set(fence []clientv3.Cmp, url string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fence, l.url = fence, url
}

// observed notes who leads, unless this controller does.
func (l *leadership) observed(url string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fence == nil {
		l.url = url
	}
}

func (l *leadership) get() (fence []clientv3.Cmp, url string) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.fence, l.url
}

// elect stands for leader for ever, and leads while elected.
func (c *Controller) elect(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var pulse sync.WaitGroup
	pulse.Go(func() { c.keepPulse(ctx) })
	defer pulse.Wait()
	defer stop()
	for ctx.Err() == nil {
		pause := 200 * time.Millisecond
		err := c.term(ctx)
		c.lead.set(nil, "")
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, errNewerSchema):
			return err
		case errors.Is(err, errResigned):
			pause = resignPause
			c.log.Info("this controller has handed its leadership over")
		case err != nil:
			c.log.Warn("election broken, standing again", "error", err)
		}
		if pause == resignPause {
			c.observeFor(ctx, pause)
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

// term waits to be elected and leads until the lease is lost.
func (c *Controller) term(ctx context.Context) error {
	session, err := concurrency.NewSession(c.etcd.client, concurrency.WithTTL(leaderTTL), concurrency.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("open session: %w", err)
	}
	// A leader that ends in order makes room at once.
	defer func() {
		closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		session.Orphan()
		c.etcd.client.Revoke(closeCtx, session.Lease()) //nolint:errcheck // it expires by itself otherwise
	}()
	e := concurrency.NewElection(session, c.store.Keys.Election())
	watchCtx, stopWatch := context.WithCancel(ctx)
	defer stopWatch()
	go c.observeLeader(watchCtx, e)
	if err := e.Campaign(ctx, c.url); err != nil {
		return fmt.Errorf("campaign: %w", err)
	}
	stopWatch()
	fence := []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(e.Key()), "=", e.Rev())}
	// What former leaders wrote must be seen before anything is decided. The
	// election's own revision is that of standing by, which may be long ago.
	seen, err := c.store.Txn(fence...).Put(c.store.Keys.Term(), struct {
		Leader string `json:"leader"`
	}{c.config.Name}).Commit(ctx)
	if err != nil {
		return fmt.Errorf("begin to lead: %w", err)
	}
	if err := c.cache.wait(ctx, seen); err != nil {
		return err
	}
	// A newer controller may have led meanwhile.
	if _, err := c.readSchema(ctx); err != nil {
		return fmt.Errorf("begin to lead: %w", err)
	}
	if err := c.beginToLead(ctx, fence); err != nil {
		return err
	}
	c.log.Info("this controller leads", "revision", e.Rev())
	leadCtx, stop := context.WithCancel(ctx)
	defer stop()
	resigned := make(chan struct{})
	select {
	case <-c.resign: // it was meant for an earlier term
	default:
	}
	go func() {
		select {
		case <-session.Done():
			stop()
		case <-c.resign:
			close(resigned)
			stop()
		case <-leadCtx.Done():
		}
	}()
	c.emit(leadCtx, "controller", "elected", c.config.Name, "")
	if c.zones != nil {
		ended := make(chan struct{})
		go func() { defer close(ended); c.zones.Run(leadCtx, c.store) }()
		defer func() { stop(); <-ended }()
	}
	err = c.drive(leadCtx)
	select {
	case <-resigned:
		return errResigned
	default:
		return err
	}
}

// observeLeader keeps track of who leads while this controller stands by.
func (c *Controller) observeLeader(ctx context.Context, e *concurrency.Election) {
	for r := range e.Observe(ctx) {
		if len(r.Kvs) > 0 && ctx.Err() == nil {
			c.lead.observed(string(r.Kvs[0].Value))
		}
	}
}

func unavailable(text string) error {
	return &api.CallError{Status: http.StatusServiceUnavailable, Body: api.Error{Message: text}}
}

func conflict(format string, args ...any) error {
	return &api.CallError{Status: http.StatusConflict, Body: api.Error{Message: fmt.Sprintf(format, args...)}}
}

func notFound(format string, args ...any) error {
	return &api.CallError{Status: http.StatusNotFound, Body: api.Error{Message: fmt.Sprintf(format, args...)}}
}

func invalid(message string, problems ...string) error {
	return &api.CallError{Status: http.StatusBadRequest, Body: api.Error{Message: message, Problems: problems}}
}
