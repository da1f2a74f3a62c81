package testbed

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Partition lets no more traffic pass between a and b, in both directions and
// for connections that are up already; each still reaches all others. Names
// are those of hosts, "hub" (registry, DNS, etcd) or "machine" (this one).
// With b "" the cable of host a is pulled: its link loses its carrier.
// Partitions add up, outlive a host's restart, and end with Heal.
func (t *Testbed) Partition(a, b string) error {
	err := t.update(func(s *state) error {
		for _, n := range []string{a, b} {
			if n != "" && n != machineName && s.find(n) == nil {
				return fmt.Errorf("no machine %q", n)
			}
		}
		if a == b || a == "" || b == "" && (a == hubName || a == machineName) {
			return errors.New("needs two different machines, or one host")
		}
		s.Cuts = append(s.Cuts, [2]string{a, b})
		return applyCuts(s)
	})
	if err != nil {
		return fmt.Errorf("partition %s %s: %w", a, b, err)
	}
	return nil
}

// Heal ends all partitions.
func (t *Testbed) Heal() error {
	err := t.update(func(s *state) error {
		s.Cuts = nil
		return applyCuts(s)
	})
	if err != nil {
		return fmt.Errorf("heal: %w", err)
	}
	return nil
}

// applyCuts makes the hub's switch do what the state says: a table of bridge
// rules for pairs, the hub's end of the veth down for pulled cables. All of it
// is in the hub's network namespace.
func applyCuts(s *state) error {
	h, ns, err := within(s.Hub.Proc.PID)
	if err != nil {
		return err
	}
	defer ns.Close()
	defer h.Close()
	for _, n := range s.Hosts {
		link, err := h.LinkByName(n.Name)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			continue // the host is down
		}
		if err != nil {
			return fmt.Errorf("find port of %s: %w", n.Name, err)
		}
		if slices.Contains(s.Cuts, [2]string{n.Name, ""}) {
			err = h.LinkSetDown(link)
		} else {
			err = h.LinkSetUp(link)
		}
		if err != nil {
			return fmt.Errorf("set port of %s: %w", n.Name, err)
		}
	}
	conn, err := nftables.New(nftables.WithNetNSFd(int(ns)))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := &nftables.Table{Name: "cuts", Family: nftables.TableFamilyBridge}
	conn.AddTable(table) // so that there is one to delete
	conn.DelTable(table)
	conn.AddTable(table)
	chain := func(name string, hook *nftables.ChainHook) *nftables.Chain {
		return conn.AddChain(&nftables.Chain{
			Name: name, Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: hook, Priority: nftables.ChainPriorityFilter,
		})
	}
	// The hub's own traffic is not forwarded but comes in and goes out.
	forward := chain("forward", nftables.ChainHookForward)
	input, output := chain("input", nftables.ChainHookInput), chain("output", nftables.ChainHookOutput)
	for _, c := range s.Cuts {
		for _, way := range [][2]string{{c[0], c[1]}, {c[1], c[0]}} {
			from, to := way[0], way[1]
			switch {
			case from == "" || to == "":
			case to == hubName:
				conn.AddRule(drop(table, input, from, ""))
			case from == hubName:
				conn.AddRule(drop(table, output, "", to))
			case s.addressOf(from).IsValid() && s.linkAt(s.addressOf(from)) != s.linkAt(s.addressOf(to)):
				// The hub routes between them: what comes in for the other is
				// dropped before it does.
				for _, r := range dropTo(table, input, from, s.addressOf(to)) {
					conn.AddRule(r)
				}
			default:
				conn.AddRule(drop(table, forward, from, to))
			}
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("set switch rules: %w", err)
	}
	return nil
}

// drop is a rule against frames that come in by one port and go out by
// another; "" is any.
func drop(table *nftables.Table, chain *nftables.Chain, in, out string) *nftables.Rule {
	r := &nftables.Rule{Table: table, Chain: chain}
	for _, m := range []struct {
		key  expr.MetaKey
		port string
	}{{expr.MetaKeyIIFNAME, in}, {expr.MetaKeyOIFNAME, out}} {
		if m.port == "" {
			continue
		}
		name := make([]byte, unix.IFNAMSIZ)
		copy(name, m.port)
		r.Exprs = append(r.Exprs,
			&expr.Meta{Key: m.key, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name})
	}
	r.Exprs = append(r.Exprs, &expr.Verdict{Kind: expr.VerdictDrop})
	return r
}

// addressOf is the address of a machine by name; that of the machine itself is
// on the first link.
func (s *state) addressOf(name string) netip.Addr {
	if name == machineName {
		return octet(s.Subnet, machineOctet)
	}
	if n := s.find(name); n != nil {
		if a, err := netip.ParseAddr(n.Address); err == nil {
			return a
		}
	}
	return netip.Addr{}
}

// dropTo are rules against packets that come in by a port for an address, of
// either family.
func dropTo(table *nftables.Table, chain *nftables.Chain, in string, to netip.Addr) []*nftables.Rule {
	var rules []*nftables.Rule
	for _, m := range []struct {
		protocol       uint16
		offset, length uint32
		address        netip.Addr
	}{{unix.ETH_P_IP, 16, 4, to}, {unix.ETH_P_IPV6, 24, 16, address6(to)}} {
		r := drop(table, chain, in, "")
		verdict := r.Exprs[len(r.Exprs)-1]
		r.Exprs = append(r.Exprs[:len(r.Exprs)-1],
			&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(m.protocol >> 8), byte(m.protocol)}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: m.offset, Len: m.length},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: m.address.AsSlice()},
			verdict)
		rules = append(rules, r)
	}
	return rules
}
