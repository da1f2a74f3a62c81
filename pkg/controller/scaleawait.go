package controller

import (
	"context"
	"sync"
	"time"

	"clocker.io/clocker/pkg/placement"
)

// hostPatience is how long a deploy waits for a host that is on its way: a
// bare machine gets an engine in that time.
const hostPatience = 5 * time.Minute

// awaitHost waits for a host that could take what no host can take now.
//
// How a deploy calls it: when its placement is refused, with the refused
// requests, without holding c.placing, and never for a dry run:
//
//	again, why := c.awaitHost(ctx, refused, began, func(text string) { ... })
//
// again means that the fleet now has room: place once more, and call awaitHost
// once more with the same began if that is refused too. Otherwise no host will
// come, or none came within [hostPatience] of began, and the deploy fails with
// its own reasons; why, unless empty, is one line more for its problems. say
// is told what is waited for ("waiting for a host: ..."), each text once; it is
// called from this goroutine only.
//
// A fleet without a provider of hosts answers at once with no why.
func (c *Controller) awaitHost(ctx context.Context, refused []placement.Request, began time.Time, say func(text string)) (again bool, why string) {
	if len(refused) == 0 {
		return true, ""
	}
	if !c.hasProviders() {
		return false, ""
	}
	w := c.scale.add(refused)
	defer c.scale.drop(w)
	limit := time.NewTimer(hostPatience - c.now().Sub(began))
	defer limit.Stop()
	leads := time.NewTicker(time.Second)
	defer leads.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return false, ""
		case <-limit.C:
			why := "no host came within " + hostPatience.String()
			if said != "" {
				why += " (" + said + ")"
			}
			return false, why + ": docker clocker headroom shows why"
		case <-leads.C:
			if fence, _ := c.lead.get(); fence == nil {
				return false, "this controller no longer leads: try again"
			}
		case v := <-w.verdict:
			switch {
			case v.fits:
				return true, ""
			case v.hopeless != "":
				return false, v.hopeless
			case v.coming != said && v.coming != "":
				said = v.coming
				say("waiting for a host: " + v.coming)
			}
		}
	}
}

func (c *Controller) hasProviders() bool {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	return len(c.cache.providers) > 0
}

// waitVerdict is what the scaling loop makes of a wait: one field is set.
type waitVerdict struct {
	fits     bool
	coming   string
	hopeless string
}

// hostWait is a deploy that waits for hosts.
type hostWait struct {
	requests []placement.Request
	// verdict holds the latest answer that was not taken yet.
	verdict chan waitVerdict
}

// tell replaces an answer that was not taken by a newer one. Only the scaling
// loop calls it.
func (w *hostWait) tell(v waitVerdict) {
	select {
	case <-w.verdict:
	default:
	}
	w.verdict <- v
}

// hostWaits are the deploys that wait for hosts. The zero value is ready.
type hostWaits struct {
	mu    sync.Mutex // guards the following fields
	waits []*hostWait
	// changed is closed and made anew when a wait is added; nil before the
	// first look.
	changed chan struct{}
}

func (h *hostWaits) add(requests []placement.Request) *hostWait {
	w := &hostWait{requests: requests, verdict: make(chan waitVerdict, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waits = append(h.waits, w)
	if h.changed != nil {
		close(h.changed)
		h.changed = nil
	}
	return w
}

func (h *hostWaits) drop(w *hostWait) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.waits {
		if h.waits[i] == w {
			h.waits = append(h.waits[:i:i], h.waits[i+1:]...)
			return
		}
	}
}

// next returns the waits and a channel that is closed when one is added.
func (h *hostWaits) next() ([]*hostWait, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.changed == nil {
		h.changed = make(chan struct{})
	}
	return append([]*hostWait(nil), h.waits...), h.changed
}
