package policy

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
)

// send applies changes in one transaction. If the kernel does not have what
// the changes rest on, the whole table is put in place instead.
func (t *Table) send(ops []op) error {
	reload := slices.ContainsFunc(ops, func(o op) bool { return o.reload })
	if !reload {
		err := t.sendChanges(ops)
		if err == nil {
			return nil
		}
		t.log.Warn("table differs from what it should be, replacing it", "error", err)
	}
	t.mu.Lock()
	r := Render(t.state())
	t.mu.Unlock()
	if err := t.sendAll(r); err != nil {
		return fmt.Errorf("load table inet %s: %w", TableName, err)
	}
	return nil
}

func (t *Table) sendAll(r Ruleset) error {
	c, err := t.conn.open()
	if err != nil {
		return err
	}
	table := &nftables.Table{Name: TableName, Family: nftables.TableFamilyINet}
	// Made first, so that there is always one to delete.
	c.AddTable(table)
	c.DelTable(table)
	c.AddTable(table)
	for _, s := range r.Sets {
		if err := addSet(c, table, s); err != nil {
			return err
		}
	}
	// Verdict maps lead to chains: those first, and rules last.
	addChains(c, table, r.Chains)
	for _, s := range r.Sets {
		if err := fill(c, table, s, s.Elements); err != nil {
			return err
		}
	}
	return t.conn.flush()
}

func (t *Table) sendChanges(ops []op) error {
	c, err := t.conn.open()
	if err != nil {
		return err
	}
	table := &nftables.Table{Name: TableName, Family: nftables.TableFamilyINet}
	declared := map[string]Set{}
	for _, s := range emptySets() {
		declared[s.Name] = s
	}
	for _, o := range ops {
		addChains(c, table, o.addChains)
		for _, s := range o.replace {
			set, err := s.declare(table)
			if err != nil {
				return err
			}
			c.FlushSet(set)
			if err := fill(c, table, s, s.Elements); err != nil {
				return err
			}
		}
		for _, x := range group(o.remove) {
			if err := change(c, table, declared[x.set], x.elements, c.SetDeleteElements); err != nil {
				return err
			}
		}
		for _, x := range group(o.add) {
			if err := fill(c, table, declared[x.set], x.elements); err != nil {
				return err
			}
		}
		for _, chain := range o.removeChains {
			k := &nftables.Chain{Name: chain.Name, Table: table}
			c.FlushChain(k)
			c.DelChain(k)
		}
	}
	return t.conn.flush()
}

func addSet(c *nftables.Conn, table *nftables.Table, s Set) error {
	set, err := s.declare(table)
	if err != nil {
		return err
	}
	return c.AddSet(set, nil)
}

// chunk is how many elements go into one message: an attribute of it cannot
// be longer than 64 kB.
const chunk = 400

func fill(c *nftables.Conn, table *nftables.Table, s Set, es []Element) error {
	return change(c, table, s, es, c.SetAddElements)
}

func change(_ *nftables.Conn, table *nftables.Table, s Set, es []Element, f func(*nftables.Set, []nftables.SetElement) error) error {
	set, err := s.declare(table)
	if err != nil {
		return err
	}
	all, err := elements(es, s.Interval)
	if err != nil {
		return err
	}
	for part := range slices.Chunk(all, chunk) {
		if err := f(set, part); err != nil {
			return err
		}
	}
	return nil
}

// addChains adds chains, then their rules, as rules may jump to any of them.
func addChains(c *nftables.Conn, table *nftables.Table, chains []Chain) {
	made := make([]*nftables.Chain, len(chains))
	for i, chain := range chains {
		k := &nftables.Chain{Name: chain.Name, Table: table}
		if chain.Hook != "" {
			accept := nftables.ChainPolicyAccept
			k.Type = nftables.ChainType(chain.Type)
			k.Hooknum = hooks[chain.Hook]
			k.Priority = nftables.ChainPriorityRef(nftables.ChainPriority(chain.Priority))
			k.Policy = &accept
		}
		made[i] = c.AddChain(k)
	}
	for i, chain := range chains {
		for _, r := range chain.Rules {
			c.AddRule(&nftables.Rule{Table: table, Chain: made[i], Exprs: r.exprs()})
		}
	}
}

var hooks = map[string]*nftables.ChainHook{
	"prerouting": nftables.ChainHookPrerouting, "input": nftables.ChainHookInput, "forward": nftables.ChainHookForward,
	"output": nftables.ChainHookOutput, "postrouting": nftables.ChainHookPostrouting,
}
