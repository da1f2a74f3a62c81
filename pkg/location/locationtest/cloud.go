// Package locationtest plays a provider that makes machines, for the tests of
// what asks for them. It makes none: it counts. It answers as a cloud does,
// which is slow, forgets nobody's bill and may die with any of its callers.
//
// It never runs outside tests.
//
// Design page: docs/design/location.md.
package locationtest

import (
	"context"
	"fmt"
	"sync"

	"clocker.io/clocker/pkg/location"
)

// Cloud is the simulator. Its zero value is not ready: use [NewCloud].
type Cloud struct {
	// Polls is how often a machine is looked at before it is ready; negative
	// means that it is ready when it is made.
	Polls int
	// Quota bounds the machines that live at once; 0 means none.
	Quota int
	// Kinds are what it offers; none means one kind, "small".
	Kinds []location.Offer
	// Hook, when not nil, is called before ("before create") and after each
	// call, where a test may let its caller die by an error.
	Hook func(at string) error

	mu       sync.Mutex // guards the following fields
	machines map[string]*machine
	next     int
	created  map[string]int
	released int
	calls    map[string]int
}

type machine struct {
	location.Machine
	tag   string
	polls int
	gone  bool
}

// NewCloud returns a cloud without machines.
func NewCloud() *Cloud {
	return &Cloud{machines: map[string]*machine{}, created: map[string]int{}, calls: map[string]int{}}
}

var _ location.Provider = (*Cloud)(nil)

func (c *Cloud) hook(at string) error {
	c.mu.Lock()
	c.calls[at]++
	c.mu.Unlock()
	if c.Hook == nil {
		return nil
	}
	return c.Hook(at)
}

// Offers implements [location.Provider].
func (c *Cloud) Offers() []location.Offer {
	if len(c.Kinds) > 0 {
		return c.Kinds
	}
	return []location.Offer{{ID: "small", Price: location.Price{Amount: 1, Currency: "EUR"}}}
}

// Create implements [location.Provider]. It does not look for the tag: a
// caller that did not look either makes two machines, which is counted.
func (c *Cloud) Create(_ context.Context, o location.Order) (location.Machine, error) {
	if err := c.hook("before create"); err != nil {
		return location.Machine{}, err
	}
	c.mu.Lock()
	alive := 0
	for _, m := range c.machines {
		if !m.gone {
			alive++
		}
	}
	if c.Quota > 0 && alive >= c.Quota {
		c.mu.Unlock()
		return location.Machine{}, &location.QuotaError{What: "instances", Limit: float64(c.Quota), Used: float64(alive)}
	}
	c.next++
	handle := fmt.Sprintf("i-%d", c.next)
	m := &machine{tag: o.Tag, Machine: location.Machine{Handle: handle, State: location.Pending}}
	if c.Polls < 0 {
		m.State, m.Endpoint = location.Ready, "ssh://root@"+handle
	}
	c.machines[handle] = m
	c.created[o.Tag]++
	out := m.Machine
	c.mu.Unlock()
	if err := c.hook("after create"); err != nil {
		return location.Machine{}, err
	}
	return out, nil
}

// Find implements [location.Provider].
func (c *Cloud) Find(_ context.Context, tag string) ([]location.Machine, error) {
	if err := c.hook("before find"); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []location.Machine
	for _, m := range c.machines {
		if m.tag == tag && !m.gone {
			out = append(out, m.Machine)
		}
	}
	return out, nil
}

// Status implements [location.Provider].
func (c *Cloud) Status(_ context.Context, handle string) (location.Machine, error) {
	if err := c.hook("before status"); err != nil {
		return location.Machine{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.machines[handle]
	if m == nil || m.gone {
		return location.Machine{}, location.ErrGone
	}
	if m.polls++; m.polls > c.Polls && m.State == location.Pending {
		m.State, m.Endpoint = location.Ready, "ssh://root@"+handle
	}
	return m.Machine, nil
}

// Release implements [location.Provider].
func (c *Cloud) Release(_ context.Context, handle string) error {
	if err := c.hook("before release"); err != nil {
		return err
	}
	c.mu.Lock()
	if m := c.machines[handle]; m != nil && !m.gone {
		m.gone = true
		c.released++
	}
	c.mu.Unlock()
	return c.hook("after release")
}

// Fail makes a machine fail, or vanish as one that somebody else removed.
func (c *Cloud) Fail(handle string, vanish bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.machines[handle]
	m.State, m.Error, m.gone = location.Failed, "no capacity in the zone", vanish
}

// Alive are the handles of the machines that must be paid for.
func (c *Cloud) Alive() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for h, m := range c.machines {
		if !m.gone {
			out = append(out, h)
		}
	}
	return out
}

// Made is how many machines were ever made, and how many at most for one tag.
func (c *Cloud) Made() (all, perTag int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.created {
		all += n
		perTag = max(perTag, n)
	}
	return all, perTag
}

// Released is how many machines were given back.
func (c *Cloud) Released() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.released
}
