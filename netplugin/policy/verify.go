package policy

import (
	"context"
	"time"

	"clocker.io/clocker/netplugin/nft"
)

const (
	// lookEvery is how often the table's presence and the rules in
	// DOCKER-USER are looked at: firewalls that are loaded anew flush both.
	lookEvery = 2 * time.Second
	// compareEvery counts looks: at each of these the table is compared as
	// a whole.
	compareEvery = 15
)

// Run looks after the table and the rules in DOCKER-USER until ctx ends, and
// puts back what something else removed.
func (t *Table) Run(ctx context.Context) error {
	user := dockerUser{log: t.log}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for n := 0; ; n++ {
		if err := t.check(n%compareEvery == 0); err != nil {
			t.log.Warn("table was changed by something else, replacing it", "reason", err)
			if err := t.Load(); err != nil {
				t.log.Error("table not replaced, trying again", "error", err)
			}
		}
		if err := user.Assert(); err != nil {
			t.log.Warn("rules in DOCKER-USER not asserted, trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// check compares the kernel's table with what it should be: whether it is
// there, and, if thorough, the numbers of rules and elements.
func (t *Table) check(thorough bool) error {
	t.turn.Lock()
	defer t.turn.Unlock()
	t.mu.Lock()
	loaded, want := t.loaded, nft.Ruleset{Family: nft.INet, Table: TableName}
	if loaded && thorough {
		want = Render(t.state())
	}
	t.mu.Unlock()
	if !loaded {
		return nil
	}
	return t.conn.Compare(want, thorough)
}
