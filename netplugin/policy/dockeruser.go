package policy

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"clocker.io/clocker/netplugin/nft"
	"clocker.io/clocker/netplugin/segment"
)

// Docker sets the policy of the FORWARD chain to DROP and leaves the chain
// DOCKER-USER to others. What our own table let pass must be accepted there.
const (
	dockerUserTable = "filter"
	dockerUserChain = "DOCKER-USER"
)

// legacyTables lists the tables of the older iptables that the host uses.
const legacyTables = "/proc/net/ip_tables_names"

// dockerUser keeps two rules at the top of DOCKER-USER: accept what comes from
// and what goes to our links.
type dockerUser struct {
	log  *slog.Logger
	conn nft.Connection
	// told keeps the warning about the older iptables to one.
	told atomic.Bool
}

// families are those that Docker has a chain for: one each.
var families = []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6}

// Assert puts the rules back that are missing. Without the chain it does
// nothing: Docker makes it when it starts, and without Docker nothing drops.
func (d *dockerUser) Assert() error {
	c, err := d.conn.Open()
	if err != nil {
		return err
	}
	missing := false
	for _, family := range families {
		chain, rules, err := dockerUserRules(c, family)
		if err != nil {
			d.conn.Close()
			return err
		}
		if chain == nil {
			if family == nftables.TableFamilyIPv4 && d.legacy() && d.told.CompareAndSwap(false, true) {
				d.log.Error("this host's Docker uses the older iptables (iptables-legacy), whose FORWARD chain drops the packets of Clocker's networks; " +
					"choose iptables-nft (update-alternatives --set iptables /usr/sbin/iptables-nft) and restart Docker, or accept ck+ there by hand")
			}
			continue
		}
		for _, key := range []expr.MetaKey{expr.MetaKeyOIFNAME, expr.MetaKeyIIFNAME} {
			if !hasAccept(rules, key) {
				c.InsertRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: acceptExprs(key)})
				missing = true
			}
		}
	}
	if !missing {
		return nil
	}
	if err := d.conn.Flush(); err != nil {
		return fmt.Errorf("add rules: %w", err)
	}
	d.log.Info("accepted our links in DOCKER-USER")
	return nil
}

// missing reports whether a rule is not where it must be.
func (d *dockerUser) missing() (bool, error) {
	c, err := d.conn.Open()
	if err != nil {
		return false, err
	}
	for _, family := range families {
		chain, rules, err := dockerUserRules(c, family)
		if err != nil {
			return false, err
		}
		if chain != nil && !(hasAccept(rules, expr.MetaKeyIIFNAME) && hasAccept(rules, expr.MetaKeyOIFNAME)) {
			return true, nil
		}
	}
	return false, nil
}

// legacy reports whether the older iptables has a filter table here.
func (d *dockerUser) legacy() bool {
	b, err := os.ReadFile(legacyTables)
	return err == nil && strings.Contains("\n"+string(b), "\nfilter\n")
}

// RemoveDockerUser removes our rules from DOCKER-USER and no others.
func RemoveDockerUser() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	for _, family := range families {
		_, rules, err := dockerUserRules(c, family)
		if err != nil {
			return err
		}
		for _, r := range rules {
			if isAccept(r, expr.MetaKeyIIFNAME) || isAccept(r, expr.MetaKeyOIFNAME) {
				if err := c.DelRule(r); err != nil {
					return fmt.Errorf("remove rule from %s: %w", dockerUserChain, err)
				}
			}
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("remove rules from %s: %w", dockerUserChain, err)
	}
	return nil
}

// RemoveTable removes the table, if it is there.
func RemoveTable() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	t := &nftables.Table{Name: TableName, Family: nftables.TableFamilyINet}
	c.AddTable(t)
	c.DelTable(t)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("remove table inet %s: %w", TableName, err)
	}
	return nil
}

// dockerUserRules finds the chain; it is nil when there is none.
func dockerUserRules(c *nftables.Conn, family nftables.TableFamily) (*nftables.Chain, []*nftables.Rule, error) {
	table := &nftables.Table{Name: dockerUserTable, Family: family}
	chains, err := c.ListChainsOfTableFamily(table.Family)
	if err != nil {
		return nil, nil, fmt.Errorf("find chain %s: %w", dockerUserChain, err)
	}
	i := slices.IndexFunc(chains, func(c *nftables.Chain) bool {
		return c.Table.Name == dockerUserTable && c.Name == dockerUserChain
	})
	if i < 0 {
		return nil, nil, nil
	}
	chain := &nftables.Chain{Name: dockerUserChain, Table: table}
	rules, err := c.GetRules(table, chain)
	if err != nil {
		return nil, nil, fmt.Errorf("read chain %s: %w", dockerUserChain, err)
	}
	return chain, rules, nil
}

// acceptExprs is what iptables-nft makes of `-i ck+ -j ACCEPT`, or -o.
func acceptExprs(key expr.MetaKey) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte(segment.LinkPrefix)},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}
}

func hasAccept(rules []*nftables.Rule, key expr.MetaKey) bool {
	// It must stand before anything that could drop: among the first two.
	for _, r := range rules[:min(2, len(rules))] {
		if isAccept(r, key) {
			return true
		}
	}
	return false
}

func isAccept(r *nftables.Rule, key expr.MetaKey) bool {
	if len(r.Exprs) != 4 {
		return false
	}
	m, ok1 := r.Exprs[0].(*expr.Meta)
	c, ok2 := r.Exprs[1].(*expr.Cmp)
	_, ok3 := r.Exprs[2].(*expr.Counter)
	v, ok4 := r.Exprs[3].(*expr.Verdict)
	return ok1 && ok2 && ok3 && ok4 && m.Key == key && c.Op == expr.CmpOpEq &&
		bytes.Equal(bytes.TrimRight(c.Data, "\x00"), []byte(segment.LinkPrefix)) && v.Kind == expr.VerdictAccept
}
