package controller

import (
	"encoding/json"
	"fmt"
	"sort"
	"testing"
	"time"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"

	"gotest.tools/v3/assert"
	"pgregory.net/rapid"
)

// etcdModel is what etcd holds, by key.
type etcdModel map[string]store.Raw

// drawKey draws a key with a value of few kinds, so that they meet.
func drawKey(rt *rapid.T, k store.Keys) (string, any) {
	of := func(prefix string, n int) string {
		return fmt.Sprintf("%s%d", prefix, rapid.IntRange(1, n).Draw(rt, prefix))
	}
	host, app, task := of("h", 3), of("app", 3), of("t", 6)
	switch rapid.IntRange(0, 8).Draw(rt, "kind") {
	case 0, 1:
		return k.Assignment(host, host+task), record.Assignment{Task: host + task, App: app, Host: host, Slot: rapid.IntRange(1, 3).Draw(rt, "slot")}
	case 2, 3:
		return k.Observed(host, host+task), record.Observed{Task: host + task, App: app, Host: host, Restarts: rapid.IntRange(0, 3).Draw(rt, "restarts")}
	case 4:
		state := rapid.SampledFrom([]string{record.HostActive, record.HostDraining, record.HostRemoving}).Draw(rt, "state")
		return k.HostSpec(host), record.Host{ID: host, Name: "name-" + host, State: state}
	case 8:
		return k.HostHealth(host), record.HostHealth{State: rapid.SampledFrom([]string{record.HealthReady, record.HealthLost}).Draw(rt, "health")}
	case 5:
		return k.HostLease(host), record.HostLease{}
	case 6:
		return k.Network("n" + host), record.Network{ID: "n" + host, Name: app + "_default", App: app}
	default:
		return k.AppCurrent(app), record.AppState{Name: app, Last: rapid.IntRange(1, 3).Draw(rt, "last")}
	}
}

// drawChange draws a change of the watch and carries it out on the model.
func drawChange(rt *rapid.T, k store.Keys, m etcdModel, revision int64) store.Change {
	ch := store.Change{Revision: revision, Reset: rapid.IntRange(0, 9).Draw(rt, "reset") == 0}
	touched := map[string]bool{}
	for range rapid.IntRange(1, 6).Draw(rt, "keys") {
		key, value := drawKey(rt, k)
		if touched[key] {
			continue // a change has each key once
		}
		touched[key] = true
		if _, there := m[key]; there && rapid.Bool().Draw(rt, "delete") {
			delete(m, key)
			ch.Deletes = append(ch.Deletes, key)
			continue
		}
		b, err := json.Marshal(value)
		if err != nil {
			rt.Fatal(err)
		}
		m[key] = store.Raw{Key: key, Value: b, Revision: revision, Created: revision}
		ch.Puts = append(ch.Puts, m[key])
	}
	if ch.Reset {
		ch.Puts, ch.Deletes = nil, nil
		for _, r := range m {
			ch.Puts = append(ch.Puts, r)
		}
		sort.Slice(ch.Puts, func(i, j int) bool { return ch.Puts[i].Key < ch.Puts[j].Key })
	}
	return ch
}

// The indexes after any changes are those of a cache that reads the same from
// the beginning, and so is every view; and views taken earlier do not change.
func TestIndexesAreThoseOfTheSameStateReadAnew(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := newCache("f")
		model := etcdModel{}
		now := time.Unix(0, 0)
		type kept struct {
			v    view
			text string
		}
		var earlier []kept
		text := func(v view) string {
			b, err := json.Marshal([]any{v.Assignments, v.Observed, v.HostUp, v.Hosts, v.HostLost, v.Leaving, v.revisions, v.networks})
			if err != nil {
				rt.Fatal(err)
			}
			return string(b)
		}
		for i := range rapid.IntRange(1, 25).Draw(rt, "changes") {
			c.apply(drawChange(rt, c.keys, model, int64(i+1)))
			fresh := newCache("f")
			all := store.Change{Reset: true, Revision: int64(i + 1)}
			for _, r := range model {
				all.Puts = append(all.Puts, r)
			}
			fresh.apply(all)
			assert.DeepEqual(rt, c.onHost, fresh.onHost)
			assert.DeepEqual(rt, c.assignments, fresh.assignments)
			assert.DeepEqual(rt, c.observed, fresh.observed)
			assert.Equal(rt, len(c.tasks), len(fresh.tasks))
			for app, t := range fresh.tasks {
				assert.DeepEqual(rt, c.tasks[app].assignments, t.assignments)
				assert.DeepEqual(rt, c.tasks[app].observed, t.observed)
			}
			for _, app := range []string{"app1", "app2", "app3"} {
				v := c.view(app, now)
				assert.Equal(rt, text(v), text(fresh.view(app, now)))
				earlier = append(earlier, kept{v, text(v)})
			}
		}
		for _, k := range earlier {
			assert.Equal(rt, text(k.v), k.text, "a view has changed after it was taken")
		}
	})
}

// Whoever waits for an application is woken by every change of its view, and
// not by those of others alone.
func TestOnlyWhoIsConcernedIsWoken(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := newCache("f")
		model := etcdModel{}
		now := time.Unix(0, 0)
		apps := []string{"app1", "app2", "app3"}
		subs, was := map[string]*subscription{}, map[string]string{}
		text := func(app string) string {
			v := c.view(app, now)
			b, err := json.Marshal([]any{v.Assignments, v.Observed, v.HostUp, v.Hosts, v.HostLost, v.Leaving, v.revisions, v.networks, v.state})
			if err != nil {
				rt.Fatal(err)
			}
			return string(b)
		}
		for _, app := range apps {
			subs[app], was[app] = c.wakes.subscribe(topicApp(app), topicHosts), text(app)
		}
		for i := range rapid.IntRange(1, 25).Draw(rt, "changes") {
			c.apply(drawChange(rt, c.keys, model, int64(i+1)))
			for _, app := range apps {
				woken := false
				select {
				case <-subs[app].C:
					woken = true
				default:
				}
				is := text(app)
				if is != was[app] && !woken {
					rt.Fatalf("nobody is told that %s went from %s to %s", app, was[app], is)
				}
				was[app] = is
			}
		}
		for _, s := range subs {
			s.end()
		}
		assert.Equal(rt, len(c.wakes.subs), 0)
	})
}

func TestOtherApplicationsChangesWakeNobody(t *testing.T) {
	c := newCache("f")
	put := func(key string, v any) {
		b, err := json.Marshal(v)
		assert.NilError(t, err)
		c.apply(store.Change{Revision: c.revision + 1, Puts: []store.Raw{{Key: key, Value: b, Revision: c.revision + 1}}})
	}
	c.apply(store.Change{Reset: true, Revision: 1})
	s := c.wakes.subscribe(topicApp("a"), topicHosts, topicRoom)
	defer s.end()
	put(c.keys.Assignment("h1", "t1"), record.Assignment{Task: "t1", App: "b", Host: "h1"})
	put(c.keys.Observed("h1", "t1"), record.Observed{Task: "t1", App: "b", Host: "h1"})
	put(c.keys.Event("1"), record.Event{ID: "1"})
	put(c.keys.HostUsage("h1"), record.HostUsage{})
	assert.Equal(t, len(s.C), 0)
	// A replica that goes makes room.
	c.apply(store.Change{Revision: 9, Deletes: []string{c.keys.Assignment("h1", "t1")}})
	assert.Equal(t, len(s.C), 1)
}

// Followers of events get each once, in order of arrival, also over a gap.
func TestEventsComeOnce(t *testing.T) {
	c := newCache("f")
	raw := func(id string) store.Raw {
		b, err := json.Marshal(record.Event{ID: id})
		assert.NilError(t, err)
		return store.Raw{Key: c.keys.Event(id), Value: b, Revision: 1}
	}
	ids := func(es []record.Event) []string {
		out := []string{}
		for _, e := range es {
			out = append(out, e.ID)
		}
		sort.Strings(out)
		return out
	}
	c.apply(store.Change{Reset: true, Revision: 1, Puts: []store.Raw{raw("1"), raw("2")}})
	fresh, at, known := c.freshEvents(eventPlace{})
	assert.DeepEqual(t, ids(fresh), []string{"1", "2"})
	assert.Assert(t, !known)
	c.apply(store.Change{Revision: 2, Puts: []store.Raw{raw("3"), raw("2")}})
	fresh, at, known = c.freshEvents(at)
	assert.DeepEqual(t, ids(fresh), []string{"3"})
	assert.Assert(t, known)
	c.apply(store.Change{Revision: 3, Deletes: []string{c.keys.Event("1")}})
	fresh, at, _ = c.freshEvents(at)
	assert.Equal(t, len(fresh), 0)
	c.apply(store.Change{Reset: true, Revision: 4, Puts: []store.Raw{raw("3"), raw("4")}})
	fresh, _, known = c.freshEvents(at)
	assert.DeepEqual(t, ids(fresh), []string{"3", "4"})
	assert.Assert(t, !known)
}
