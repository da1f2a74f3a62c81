package dnsupdate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// Updater keeps one server's zones.
type Updater struct {
	// Config and Fleet say where and for whom.
	Config Config
	Fleet  string
	Log    *slog.Logger
	// Now is the clock; signatures carry its time.
	Now func() time.Time

	mu       sync.Mutex
	names    map[string]record.NameRecord // guarded by mu
	services map[string]record.Service    // guarded by mu
	// said is what was last logged about names that somebody else has; only
	// of Run's goroutine.
	said string
}

const (
	// gather is how long changes are gathered before the zone is read.
	gather = 200 * time.Millisecond
	// again is how often the zone is looked at though nothing has changed.
	again = time.Minute
	// patience is how long the server may take for one message.
	patience = 5 * time.Second
)

// Run follows the fleet's names and keeps the zones until ctx ends. While the
// server is away it tries again for ever.
func (u *Updater) Run(ctx context.Context, s *store.Store) {
	u.names, u.services = map[string]record.NameRecord{}, map[string]record.Service{}
	wake := make(chan struct{}, 1)
	var read sync.WaitGroup // until both prefixes were read once
	read.Add(2)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Add(2)
	go func() { defer wg.Done(); follow(ctx, u, s, s.Keys.Names(), u.names, wake, &read) }()
	go func() { defer wg.Done(); follow(ctx, u, s, s.Keys.Services(), u.services, wake, &read) }()
	ready := make(chan struct{})
	go func() { read.Wait(); close(ready) }()
	select {
	case <-ctx.Done():
		return
	case <-ready:
	}
	told := ""
	for wait := gather; ; {
		err := u.converge(ctx)
		timer := again
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			wait, told = gather, ""
		default:
			wait = min(2*wait, 30*time.Second)
			timer = wait
			if err.Error() != told {
				told = err.Error()
				u.Log.Warn("names are not kept in the zone, trying again", "server", u.Config.Server, "zone", u.Config.Zone, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(timer):
		case <-wake:
			select {
			case <-ctx.Done():
				return
			case <-time.After(gather):
			}
		}
	}
}

func follow[T any](ctx context.Context, u *Updater, s *store.Store, prefix string, into map[string]T, wake chan<- struct{}, read *sync.WaitGroup) {
	var once sync.Once
	defer once.Do(read.Done)
	_ = s.Follow(ctx, prefix, u.Log, func(c store.Change) {
		u.mu.Lock()
		if c.Reset {
			clear(into)
		}
		for _, raw := range c.Puts {
			v, err := store.Decode[T](raw)
			if err != nil {
				u.Log.Error("record cannot be read", "key", raw.Key, "error", err)
				continue
			}
			into[raw.Key] = v
		}
		for _, k := range c.Deletes {
			delete(into, k)
		}
		u.mu.Unlock()
		once.Do(read.Done)
		select {
		case wake <- struct{}{}:
		default:
		}
	})
}

func (u *Updater) records() Records {
	u.mu.Lock()
	defer u.mu.Unlock()
	return Records{slices.Collect(maps.Values(u.names)), slices.Collect(maps.Values(u.services))}
}

// converge makes the zones what they should be, as far as their names are ours
// or nobody's.
func (u *Updater) converge(ctx context.Context) error {
	all := wanted(u.Config, u.records())
	var errs []error
	var refused []string
	for _, zone := range append([]string{u.Config.Zone}, u.Config.Reverse...) {
		rrs, err := u.transfer(ctx, zone)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		want := Set{}
		for owner, rrs := range all {
			if dns.IsSubDomain(zone, owner) {
				want[owner] = rrs
			}
		}
		have, taken := content(u.Fleet, rrs)
		changes, no := compare(want, have, taken)
		refused = append(refused, no...)
		for _, c := range changes {
			if err := u.send(ctx, zone, c); err != nil {
				errs = append(errs, err)
				if ctx.Err() != nil {
					break
				}
			}
		}
		if len(changes) > 0 {
			u.Log.Info("zone updated", "zone", zone, "names", len(changes))
		}
	}
	if said := strings.Join(refused, " "); said != u.said {
		u.said = said
		if said != "" {
			u.Log.Warn("names in the zone are somebody else's and are left as they are", "names", said)
		}
	}
	return errors.Join(errs...)
}

// clock is how far the clocks of server and controller may differ, in seconds
// (RFC 8945, section 10 recommends it).
const clock = 300

func (u *Updater) secret() map[string]string {
	return map[string]string{u.Config.Key.Name: u.Config.Key.Secret}
}

// transfer reads a zone.
func (u *Updater) transfer(ctx context.Context, zone string) ([]dns.RR, error) {
	m := new(dns.Msg)
	m.SetAxfr(zone)
	m.SetTsig(u.Config.Key.Name, u.Config.Key.Algorithm, clock, u.Now().Unix())
	t := &dns.Transfer{TsigSecret: u.secret(), DialTimeout: patience, ReadTimeout: patience, WriteTimeout: patience}
	envelopes, err := t.In(m, u.Config.Server)
	if err != nil {
		return nil, fmt.Errorf("read zone %s: %w", zone, err)
	}
	var rrs []dns.RR
	for e := range envelopes {
		if e.Error != nil {
			err = e.Error
			continue
		}
		rrs = append(rrs, e.RR...)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("read zone %s (the server must allow its transfer with key %s): %w", zone, u.Config.Key.Name, err)
	}
	return rrs, nil
}

// errTaken means that the server found the name to be somebody else's, or no
// longer as it was.
var errTaken = errors.New("the name has changed meanwhile")

func (u *Updater) send(ctx context.Context, zone string, c change) error {
	m, err := c.message(zone, u.Fleet)
	if err != nil {
		return fmt.Errorf("update name %s: %w", c.owner, err)
	}
	m.SetTsig(u.Config.Key.Name, u.Config.Key.Algorithm, clock, u.Now().Unix())
	// Over TCP: a name with many replicas does not fit into a datagram.
	client := &dns.Client{Net: "tcp", TsigSecret: u.secret(), Timeout: patience}
	r, _, err := client.ExchangeContext(ctx, m, u.Config.Server)
	switch {
	case err != nil:
		return fmt.Errorf("update name %s: %w", c.owner, err)
	case r.Rcode == dns.RcodeYXDomain, r.Rcode == dns.RcodeNXRrset, r.Rcode == dns.RcodeNameError:
		return fmt.Errorf("update name %s: %w", c.owner, errTaken)
	case r.Rcode != dns.RcodeSuccess:
		return fmt.Errorf("update name %s: server answers %s", c.owner, dns.RcodeToString[r.Rcode])
	}
	return nil
}
