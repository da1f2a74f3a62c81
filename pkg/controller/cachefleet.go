package controller

import (
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// putFleet takes in what concerns machines, people and policies.
func (c *cache) putFleet(p []string, r store.Raw) {
	last := p[len(p)-1]
	switch {
	case p[0] == "hosts" && len(p) == 3 && last == "usage":
		set(c.usage, p[1], r)
	case p[0] == "hosts" && len(p) == 3 && last == "health":
		setItem(c.health, p[1], r)
		c.seenHosts = seenHosts{}
	case p[0] == "hosts" && len(p) == 3 && last == "fence":
		setItem(c.fences, p[1], r)
		c.regone(p[1])
	case p[0] == "hosts" && len(p) == 3 && last == "membership":
		setItem(c.memberships, p[1], r)
	case p[0] == "controllers" && len(p) == 3 && last == "spec":
		setItem(c.controllers, p[1], r)
	case p[0] == "controllers" && len(p) == 3 && last == "lease":
		set(c.running, p[1], r)
	case p[0] == "users" && len(p) == 2:
		setItem(c.users, p[1], r)
	case p[0] == "tokens" && len(p) == 2:
		setItem(c.tokens, p[1], r)
	case p[0] == "providers" && len(p) == 3 && last == "spec":
		setItem(c.providers, p[1], r)
	case p[0] == "machines" && len(p) == 2:
		setItem(c.machines, p[1], r)
	case p[0] == "policy" && len(p) == 3 && p[1] == "fleet":
		switch last {
		case "placement":
			c.policies.placement = item[record.PlacementPolicy](r)
		case "headroom":
			c.policies.headroom = item[record.HeadroomPolicy](r)
		}
	}
}

// removeFleet is the opposite of putFleet.
func (c *cache) removeFleet(p []string) {
	last := p[len(p)-1]
	switch {
	case p[0] == "hosts" && len(p) == 3 && last == "usage":
		delete(c.usage, p[1])
	case p[0] == "hosts" && len(p) == 3 && last == "health":
		delete(c.health, p[1])
		c.seenHosts = seenHosts{}
	case p[0] == "hosts" && len(p) == 3 && last == "fence":
		delete(c.fences, p[1])
		c.regone(p[1])
	case p[0] == "hosts" && len(p) == 3 && last == "membership":
		delete(c.memberships, p[1])
	case p[0] == "controllers" && len(p) == 3 && last == "spec":
		delete(c.controllers, p[1])
	case p[0] == "controllers" && len(p) == 3 && last == "lease":
		delete(c.running, p[1])
	case p[0] == "users" && len(p) == 2:
		delete(c.users, p[1])
	case p[0] == "tokens" && len(p) == 2:
		delete(c.tokens, p[1])
	case p[0] == "providers" && len(p) == 3 && last == "spec":
		delete(c.providers, p[1])
	case p[0] == "machines" && len(p) == 2:
		delete(c.machines, p[1])
	case p[0] == "policy" && len(p) == 3 && p[1] == "fleet":
		switch last {
		case "placement":
			c.policies.placement = store.Item[record.PlacementPolicy]{}
		case "headroom":
			c.policies.headroom = store.Item[record.HeadroomPolicy]{}
		}
	}
}

// item decodes a value; a value that cannot be read is as none.
func item[T any](r store.Raw) store.Item[T] {
	v, err := store.Decode[T](r)
	if err != nil {
		return store.Item[T]{}
	}
	return store.Item[T]{Key: r.Key, Value: v, Revision: r.Revision, Created: r.Created}
}
