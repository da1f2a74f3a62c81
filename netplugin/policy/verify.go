package policy

import (
	"context"
	"fmt"
	"time"

	"github.com/google/nftables"
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
	loaded, want := t.loaded, Ruleset{}
	if loaded && thorough {
		want = Render(t.state())
	}
	t.mu.Unlock()
	if !loaded {
		return nil
	}
	c, err := t.conn.open()
	if err != nil {
		return nil // nothing is known
	}
	table, err := c.ListTableOfFamily(TableName, nftables.TableFamilyINet)
	if err != nil || table == nil {
		return errNoTable
	}
	for _, chain := range want.Chains {
		rules, err := c.GetRules(table, &nftables.Chain{Name: chain.Name, Table: table})
		if err != nil {
			return fmt.Errorf("read chain %s: %w", chain.Name, err)
		}
		if len(rules) != len(chain.Rules) {
			return fmt.Errorf("chain %s has %d rules instead of %d", chain.Name, len(rules), len(chain.Rules))
		}
	}
	for _, s := range want.Sets {
		set, err := s.declare(table)
		if err != nil {
			return err
		}
		have, err := c.GetSetElements(set)
		if err != nil {
			return fmt.Errorf("read set %s: %w", s.Name, err)
		}
		all, err := elements(s.Elements, s.Interval)
		if err != nil {
			return err
		}
		if len(have) != len(all) {
			return fmt.Errorf("set %s has %d elements instead of %d", s.Name, len(have), len(all))
		}
	}
	return nil
}
