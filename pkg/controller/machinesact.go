package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"time"

	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/location"
	"clocker.io/clocker/pkg/record"
)

// How long the actions may take. An engine is installed within adoptTime.
const (
	providerTime = time.Minute
	adoptTime    = 10 * time.Minute
	clearTime    = 5 * time.Minute
)

// hostAdopter makes machines hosts and takes hosts off machines.
type hostAdopter interface {
	// Adopt makes the machine a host and returns the host's id. It may be
	// repeated after an interruption, by another controller too.
	Adopt(ctx context.Context, m adoption) (host string, err error)
	// Clear takes the host, when the fleet has it, out of the fleet, and
	// everything of Clocker off the machine. It may be repeated.
	Clear(ctx context.Context, m adoption) error
}

// adoption is a machine with the way to it.
type adoption struct {
	machine  record.Machine
	provider record.Provider
	// access is secret.
	access location.Credentials
	// hostKey is the machine's, in the form of authorized_keys.
	hostKey string
	labels  map[string]string
	// host is the name of the host it became; empty while the fleet has none.
	host string
}

// act carries an action out. Nothing is written by it: whoever decided it
// does, from the result.
func (c *Controller) act(ctx context.Context, m record.Machine, do location.Action) location.Result {
	switch do {
	case location.Obtain, location.Poll, location.Release:
		ctx, cancel := context.WithTimeout(ctx, providerTime)
		defer cancel()
		return c.askProvider(ctx, m, do)
	case location.Adopt, location.Clear:
		limit := adoptTime
		if do == location.Clear {
			limit = clearTime
		}
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		a, err := c.wayTo(ctx, m)
		if err != nil {
			return location.Result{Err: err}
		}
		if do == location.Clear {
			return location.Result{Err: c.adopter().Clear(ctx, a)}
		}
		host, err := c.adopter().Adopt(ctx, a)
		return location.Result{Host: host, Err: err}
	}
	return location.Result{Err: fmt.Errorf("machine %s: no such action: %s", machineName(m), do)}
}

func (c *Controller) adopter() hostAdopter {
	if c.scale.adopter != nil {
		return c.scale.adopter
	}
	return &fleetAdopter{c: c}
}

// provider opens the provider of a machine.
func (c *Controller) provider(name string) (record.Provider, location.Provider, error) {
	c.cache.mu.RLock()
	it, ok := c.cache.providers[name]
	c.cache.mu.RUnlock()
	if !ok {
		return record.Provider{}, nil, fmt.Errorf("there is no provider %s any more", name)
	}
	open := c.scale.open
	if open == nil {
		open = location.Open
	}
	p, err := open(it.Value)
	return it.Value, p, err
}

// askProvider obtains, looks at or gives back a machine.
func (c *Controller) askProvider(ctx context.Context, m record.Machine, do location.Action) location.Result {
	spec, p, err := c.provider(m.Provider)
	if err != nil {
		return location.Result{Err: err}
	}
	switch do {
	case location.Poll:
		got, err := p.Status(ctx, m.Handle)
		return location.Result{Machine: &got, Err: err}
	case location.Release:
		return location.Result{Err: release(ctx, p, m)}
	}
	// It may have been asked for already, by a controller that died before it
	// could write down the answer.
	found, err := p.Find(ctx, m.ID)
	if err != nil {
		return location.Result{Err: fmt.Errorf("look for machine: %w", err)}
	}
	if len(found) > 0 {
		for _, more := range found[1:] {
			if err := p.Release(ctx, more.Handle); err != nil {
				return location.Result{Err: fmt.Errorf("give back a machine made twice: %w", err)}
			}
		}
		return location.Result{Machine: &found[0]}
	}
	got, err := p.Create(ctx, location.Order{
		Tag: m.ID, Fleet: c.fleet, Offer: m.Offer, Name: m.Name,
		Image: spec.Config["image"], Size: spec.Config["size"],
	})
	return location.Result{Machine: &got, Err: err}
}

// release gives back all that was made for a machine, also what nobody had
// the time to write down.
func release(ctx context.Context, p location.Provider, m record.Machine) error {
	found, err := p.Find(ctx, m.ID)
	if err != nil {
		return fmt.Errorf("look for machine: %w", err)
	}
	handles := map[string]bool{}
	if m.Handle != "" {
		handles[m.Handle] = true
	}
	for _, f := range found {
		handles[f.Handle] = true
	}
	var errs []error
	for h := range handles {
		if err := p.Release(ctx, h); err != nil && !errors.Is(err, location.ErrGone) {
			errs = append(errs, fmt.Errorf("give back machine %s: %w", h, err))
		}
	}
	return errors.Join(errs...)
}

// wayTo gathers how a machine is reached.
func (c *Controller) wayTo(ctx context.Context, m record.Machine) (adoption, error) {
	spec, p, err := c.provider(m.Provider)
	if err != nil {
		return adoption{}, err
	}
	a := adoption{machine: m, provider: spec, labels: maps.Clone(spec.Labels)}
	got, err := p.Status(ctx, m.Handle)
	switch {
	case err == nil:
		a.hostKey = got.HostKey
		if a.labels == nil {
			a.labels = map[string]string{}
		}
		maps.Copy(a.labels, got.Labels)
	case !errors.Is(err, location.ErrGone) || m.Host == "":
		return a, err
	}
	c.cache.mu.RLock()
	for id, h := range c.cache.hosts {
		if id == m.Host || m.Host == "" && h.Value.Endpoint == m.Endpoint {
			a.host = h.Value.Name
		}
	}
	c.cache.mu.RUnlock()
	a.access, err = c.unseal(spec.Secret)
	return a, err
}

// identity is the fleet's own, which seals what etcd must not give away.
func (c *Controller) identity() ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(c.configDir, ca.IdentityFile))
	if err != nil {
		return nil, fmt.Errorf("read the fleet's identity: %w", err)
	}
	return b, nil
}

func (c *Controller) unseal(sealed string) (location.Credentials, error) {
	if sealed == "" {
		return location.Credentials{}, nil
	}
	id, err := c.identity()
	if err != nil {
		return location.Credentials{}, err
	}
	return location.Unseal(sealed, id)
}
