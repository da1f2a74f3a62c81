package agent

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// letGo is how long a port counts as the fleet's own after its task has gone:
// its socket is closed later than that is known.
const letGo = time.Minute

// ownPorts are the ports of this host that the fleet gave to containers. That
// something listens there does not make them somebody else's: the next one of
// the same service may have them.
type ownPorts struct {
	now func() time.Time

	mu   sync.Mutex
	have map[string][]string  // ports by key in etcd; guarded by mu
	left map[string]time.Time // ports that were, since when not; guarded by mu
}

func newOwnPorts(now func() time.Time) *ownPorts {
	return &ownPorts{now: now, have: map[string][]string{}, left: map[string]time.Time{}}
}

// tasks takes a change of the host's assignments.
func (o *ownPorts) tasks(c store.Change) {
	o.apply(c, func(r store.Raw) []string {
		a, err := store.Decode[record.Assignment](r)
		if err != nil {
			return nil
		}
		var out []string
		for _, p := range a.Container.Ports {
			out = append(out, fmt.Sprintf("%s/%d", p.Protocol, p.HostPort))
		}
		return out
	}, "/assign/")
}

// published takes a change of the ports that every host answers on.
func (o *ownPorts) published(c store.Change) {
	o.apply(c, func(r store.Raw) []string { return []string{strings.Replace(path.Base(r.Key), "_", "/", 1)} }, "/net/published/")
}

// apply takes a change of the keys that have part in them.
func (o *ownPorts) apply(c store.Change, ports func(store.Raw) []string, part string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	drop := func(key string) {
		for _, p := range o.have[key] {
			o.left[p] = o.now()
		}
		delete(o.have, key)
	}
	if c.Reset {
		for key := range o.have {
			if strings.Contains(key, part) {
				drop(key)
			}
		}
	}
	for _, key := range c.Deletes {
		drop(key)
	}
	for _, r := range c.Puts {
		drop(r.Key)
		o.have[r.Key] = ports(r)
	}
}

// without leaves the fleet's own ports out of a list of "tcp/80".
func (o *ownPorts) without(listening []string) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	own := map[string]bool{}
	for _, ports := range o.have {
		for _, p := range ports {
			own[p] = true
		}
	}
	for p, since := range o.left {
		if o.now().Sub(since) < letGo {
			own[p] = true
		} else {
			delete(o.left, p)
		}
	}
	return slices.DeleteFunc(listening, func(p string) bool { return own[p] })
}
