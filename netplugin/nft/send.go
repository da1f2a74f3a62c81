package nft

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
)

// Change is one change to a table that is in the kernel. Its parts are applied
// in the order of the fields.
type Change struct {
	// AddChains are added with their rules; Replace are sets to be filled
	// anew with the elements they hold here.
	AddChains []Chain
	Replace   []Set
	// Remove and Add are elements.
	Remove, Add []Element
	// RemoveChains are removed with their rules.
	RemoveChains []Chain
}

// Empty reports whether the change changes nothing.
func (c Change) Empty() bool {
	return len(c.AddChains)+len(c.Replace)+len(c.Remove)+len(c.Add)+len(c.RemoveChains) == 0
}

// ErrNoTable means that the table is not in the kernel.
var ErrNoTable = errors.New("table is gone")

// Load puts the table in place of the one with its name, if there is one, in
// one transaction.
func (c *Connection) Load(r Ruleset) error {
	conn, err := c.Open()
	if err != nil {
		return err
	}
	table := r.table()
	// Made first, so that there is always one to delete.
	conn.AddTable(table)
	conn.DelTable(table)
	conn.AddTable(table)
	for _, s := range r.Sets {
		if err := addSet(conn, table, s); err != nil {
			return err
		}
	}
	// Verdict maps lead to chains: those first, and rules last.
	addChains(conn, table, r.Chains)
	for _, s := range r.Sets {
		if err := fill(conn, table, s, s.Elements); err != nil {
			return err
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("load table %s %s: %w", r.Family, r.Table, err)
	}
	return nil
}

// Apply applies changes in one transaction. The table says which sets there
// are; their elements do not matter.
func (c *Connection) Apply(r Ruleset, changes []Change) error {
	conn, err := c.Open()
	if err != nil {
		return err
	}
	table := r.table()
	declared := map[string]Set{}
	for _, s := range r.Sets {
		declared[s.Name] = s
	}
	for _, o := range changes {
		addChains(conn, table, o.AddChains)
		for _, s := range o.Replace {
			set, err := s.declare(table)
			if err != nil {
				return err
			}
			conn.FlushSet(set)
			if err := fill(conn, table, s, s.Elements); err != nil {
				return err
			}
		}
		for _, x := range group(o.Remove) {
			if err := change(table, declared[x.set], x.elements, conn.SetDeleteElements); err != nil {
				return err
			}
		}
		for _, x := range group(o.Add) {
			if err := fill(conn, table, declared[x.set], x.elements); err != nil {
				return err
			}
		}
		for _, chain := range o.RemoveChains {
			k := &nftables.Chain{Name: chain.Name, Table: table}
			conn.FlushChain(k)
			conn.DelChain(k)
		}
	}
	return c.Flush()
}

// Remove takes the table away, if it is there.
func (c *Connection) Remove(r Ruleset) error {
	conn, err := c.Open()
	if err != nil {
		return err
	}
	conn.AddTable(r.table())
	conn.DelTable(r.table())
	return c.Flush()
}

// Compare says how the kernel's table differs from what it should be: whether
// it is there ([ErrNoTable]), and, if thorough, the numbers of rules and of
// elements. It returns nil when the kernel cannot be asked.
func (c *Connection) Compare(want Ruleset, thorough bool) error {
	conn, err := c.Open()
	if err != nil {
		return nil // nothing is known
	}
	table, err := conn.ListTableOfFamily(want.Table, want.table().Family)
	if err != nil || table == nil {
		return ErrNoTable
	}
	if !thorough {
		return nil
	}
	for _, chain := range want.Chains {
		rules, err := conn.GetRules(table, &nftables.Chain{Name: chain.Name, Table: table})
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
		have, err := conn.GetSetElements(set)
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

var families = map[Family]nftables.TableFamily{
	INet: nftables.TableFamilyINet, Bridge: nftables.TableFamilyBridge,
}

func (r Ruleset) table() *nftables.Table {
	return &nftables.Table{Name: r.Table, Family: families[r.Family]}
}

// elementsOf are elements of one set.
type elementsOf struct {
	set      string
	elements []Element
}

// group sorts elements by set, keeping the order otherwise.
func group(es []Element) []elementsOf {
	var out []elementsOf
	for _, e := range es {
		i := slices.IndexFunc(out, func(x elementsOf) bool { return x.set == e.Set })
		if i < 0 {
			out = append(out, elementsOf{set: e.Set})
			i = len(out) - 1
		}
		out[i].elements = append(out[i].elements, e)
	}
	return out
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
	return change(table, s, es, c.SetAddElements)
}

func change(table *nftables.Table, s Set, es []Element, f func(*nftables.Set, []nftables.SetElement) error) error {
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
