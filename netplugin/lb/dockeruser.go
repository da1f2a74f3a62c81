package lb

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Docker sets the policy of the FORWARD chain to DROP, and leaves the chain
// DOCKER-USER to others. One rule there, of each family, accepts what this host
// passes on to another one's port. It stands after those of package policy,
// which must be first, and is there whether or not there are such ports: what
// comes and goes with them would be one more change in others' chain.
const dockerUserTable, dockerUserChain = "filter", "DOCKER-USER"

var dockerFamilies = []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6}

// assertDockerUser adds the rule where it is missing, or removes it where it is
// not wanted. Without the chain it does nothing: then nothing drops.
func assertDockerUser(wanted bool) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open packet filter: %w", err)
	}
	for _, family := range dockerFamilies {
		chain, rules, err := dockerUserRules(c, family)
		if err != nil {
			return err
		}
		if chain == nil {
			continue
		}
		i := slices.IndexFunc(rules, isPass)
		switch {
		case wanted && i < 0:
			r := &nftables.Rule{Table: chain.Table, Chain: chain, Exprs: passExprs()}
			if len(rules) > ahead {
				r.Position = rules[ahead].Handle
				c.InsertRule(r)
			} else if last := len(rules) - 1; last >= 0 && isReturn(rules[last]) {
				r.Position = rules[last].Handle
				c.InsertRule(r)
			} else {
				c.AddRule(r)
			}
		case !wanted && i >= 0:
			if err := c.DelRule(rules[i]); err != nil {
				return fmt.Errorf("remove rule from %s: %w", dockerUserChain, err)
			}
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("change %s: %w", dockerUserChain, err)
	}
	return nil
}

// ahead is how many rules of package policy stand before ours.
const ahead = 2

// dockerUserRules finds the chain; it is nil when there is none.
func dockerUserRules(c *nftables.Conn, family nftables.TableFamily) (*nftables.Chain, []*nftables.Rule, error) {
	table := &nftables.Table{Name: dockerUserTable, Family: family}
	chain := &nftables.Chain{Name: dockerUserChain, Table: table}
	rules, err := c.GetRules(table, chain)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read chain %s: %w", dockerUserChain, err)
	}
	chains, err := c.ListChainsOfTableFamily(family)
	if err != nil {
		return nil, nil, fmt.Errorf("find chain %s: %w", dockerUserChain, err)
	}
	if !slices.ContainsFunc(chains, func(k *nftables.Chain) bool {
		return k.Table.Name == dockerUserTable && k.Name == dockerUserChain
	}) {
		return nil, nil, nil
	}
	return chain, rules, nil
}

var markBytes = binaryutil.NativeEndian.PutUint32(Mark)

// passExprs is what iptables-nft makes of `-m mark --mark MARK/MARK -j ACCEPT`.
func passExprs() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: unix.NFT_REG_1},
		&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 4, Mask: markBytes, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: markBytes},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}
}

func isPass(r *nftables.Rule) bool {
	if len(r.Exprs) != 5 {
		return false
	}
	m, ok1 := r.Exprs[0].(*expr.Meta)
	b, ok2 := r.Exprs[1].(*expr.Bitwise)
	c, ok3 := r.Exprs[2].(*expr.Cmp)
	v, ok4 := r.Exprs[4].(*expr.Verdict)
	return ok1 && ok2 && ok3 && ok4 && m.Key == expr.MetaKeyMARK && v.Kind == expr.VerdictAccept &&
		bytes.Equal(b.Mask, markBytes) && bytes.Equal(c.Data, markBytes)
}

// isReturn reports whether a rule is the one that Docker ends the chain with.
func isReturn(r *nftables.Rule) bool {
	if len(r.Exprs) == 0 {
		return false
	}
	v, ok := r.Exprs[len(r.Exprs)-1].(*expr.Verdict)
	return ok && v.Kind == expr.VerdictReturn
}
