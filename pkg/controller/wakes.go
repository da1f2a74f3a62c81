package controller

import (
	"context"
	"sync"
	"time"
)

// topic is a part of the cache that somebody may wait for.
type topic string

const (
	// topicApps are the applications that there are, their states and releases.
	topicApps topic = "apps"
	// topicNetworks are the fleet's networks.
	topicNetworks topic = "networks"
	// topicHosts are the hosts: records, leases, health and underlays.
	topicHosts topic = "hosts"
	// topicRoom is what may let a replica find a host that had none before,
	// beside topicHosts: facts, policies, published ports, and replicas that go.
	topicRoom topic = "room"
	// topicEvents are the fleet's events.
	topicEvents topic = "events"
)

// topicApp is one application: its state and releases, tasks and networks.
func topicApp(app string) topic { return topic("app/" + app) }

// wakes tells those who wait for parts of the cache that something there has
// changed.
type wakes struct {
	mu   sync.Mutex // guards the following fields
	subs map[topic]map[*subscription]bool
	// touched is what the change that is being taken in has touched; all says
	// that it is everything.
	touched map[topic]bool
	all     bool
}

// subscription waits for topics. C has one element after a change of one of
// them: changes that come while nobody listens are one. There is none before
// the first change, so subscribe before you read.
type subscription struct {
	C      chan struct{}
	wakes  *wakes
	topics []topic
}

// subscribe waits for topics until end is called.
func (w *wakes) subscribe(topics ...topic) *subscription {
	s := &subscription{C: make(chan struct{}, 1), wakes: w, topics: topics}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range topics {
		if w.subs[t] == nil {
			w.subs[t] = map[*subscription]bool{}
		}
		w.subs[t][s] = true
	}
	return s
}

// end stops waiting.
func (s *subscription) end() {
	s.wakes.mu.Lock()
	defer s.wakes.mu.Unlock()
	for _, t := range s.topics {
		if delete(s.wakes.subs[t], s); len(s.wakes.subs[t]) == 0 {
			delete(s.wakes.subs, t)
		}
	}
}

func (w *wakes) touch(topics ...topic) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range topics {
		w.touched[t] = true
	}
}

func (w *wakes) touchAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = true
}

// fire wakes whoever waits for what has been touched.
func (w *wakes) fire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	wake := func(subs map[*subscription]bool) {
		for s := range subs {
			select {
			case s.C <- struct{}{}:
			default: // it is to look already
			}
		}
	}
	if w.all {
		for _, subs := range w.subs {
			wake(subs)
		}
	} else {
		for t := range w.touched {
			wake(w.subs[t])
		}
	}
	clear(w.touched)
	w.all = false
}

// touchKey notes a change of a key whose value does not matter for who is woken.
func (w *wakes) touchKey(p []string) {
	switch {
	case p[0] == "apps" && len(p) >= 3:
		w.touch(topicApps, topicApp(p[1]))
	case p[0] == "hosts" && len(p) == 3 && (p[2] == "spec" || p[2] == "lease" || p[2] == "health"),
		p[0] == "net" && len(p) == 3 && p[1] == "hosts":
		w.touch(topicHosts)
	case p[0] == "hosts" && len(p) == 3 && p[2] == "facts",
		p[0] == "net" && len(p) == 3 && p[1] == "published",
		p[0] == "policy":
		w.touch(topicRoom)
	case p[0] == "events":
		w.touch(topicEvents)
	}
}

// maxPace is how long a look that costs much is put off at most.
const maxPace = 500 * time.Millisecond

// driverPace and progressPace are how many times as long as a look took is
// waited before the next one: who only tells of what happens gives way to who
// does it.
const (
	driverPace   = 1
	progressPace = 5
)

// pace puts the next look of a loop that looks again after each change off for
// some times as long as the last one took: what changes meanwhile is one look.
// began is when the last look did. It returns at once where looks are cheap.
func pace(ctx context.Context, began time.Time, times int) {
	took := time.Since(began)
	if took < 2*time.Millisecond {
		return
	}
	t := time.NewTimer(min(time.Duration(times)*took, maxPace))
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
