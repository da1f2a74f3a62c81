package preflight

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// RouteProtocol and BridgedProtocol mark the routes that Clocker makes.
const (
	RouteProtocol   = 142
	BridgedProtocol = 143
)

// farAway stands for any address beyond the default route; it is never sent
// to (RFC 5737).
var farAway = net.IPv4(198, 51, 100, 1)

func system() (kernel, cgroup string, err error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", "", fmt.Errorf("ask for kernel: %w", err)
	}
	var s unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &s); err == nil {
		cgroup = "v1"
		if s.Type == unix.CGROUP2_SUPER_MAGIC {
			cgroup = "v2"
		}
	}
	return unix.ByteSliceToString(u.Release[:]), cgroup, nil
}

// network fills in addresses and routes from the kernel.
func network(f *Facts) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	byIndex := map[int]*netlink.LinkAttrs{}
	for _, l := range links {
		byIndex[l.Attrs().Index] = l.Attrs()
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		l := byIndex[a.LinkIndex]
		p, ok := prefix(a.IPNet)
		if l == nil || !ok || p.Addr().IsLoopback() || p.Addr().IsLinkLocalUnicast() {
			continue
		}
		f.Addresses = append(f.Addresses, Address{Link: l.Name, Address: p, MTU: l.MTU})
	}
	if rs, err := netlink.RouteGet(farAway); err == nil && len(rs) > 0 && rs[0].Src != nil {
		f.DefaultSource = rs[0].Src.String()
		if l := byIndex[rs[0].LinkIndex]; l != nil {
			f.DefaultLink, f.MTU = l.Name, l.MTU
		}
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		p, ok := prefix(r.Dst)
		if !ok || p.Bits() == 0 || r.Protocol == RouteProtocol || r.Protocol == BridgedProtocol {
			continue
		}
		f.Routes = append(f.Routes, p.Masked().String())
	}
	f.Routes = sorted(f.Routes)
	return nil
}

func prefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return netip.Prefix{}, false
	}
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones), true
}

// iptables finds out by which of the kernel's two faces Docker made its
// rules: iptables-nft makes a table "filter" with Docker's chains, the legacy
// program names its tables in /proc.
func iptables(proc string) (string, error) {
	c, err := nftables.New()
	if err != nil {
		return "", fmt.Errorf("open nftables: %w", err)
	}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return "", fmt.Errorf("list nftables chains: %w", err)
	}
	for _, ch := range chains {
		if ch.Table != nil && ch.Table.Name == "filter" && strings.HasPrefix(ch.Name, "DOCKER") {
			return NFT, nil
		}
	}
	b, err := os.ReadFile(filepath.Join(proc, "net/ip_tables_names"))
	if err == nil && slices.Contains(strings.Fields(string(b)), "filter") {
		return Legacy, nil
	}
	return "", nil
}

// firewall lists the base chains that drop by default what comes in or is
// passed on: by their policy, or by a last rule that refuses everything, as
// firewalld makes them.
func firewall() ([]Chain, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	chains, err := c.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	docker, keeper := map[string]bool{}, map[string]string{}
	for _, ch := range chains {
		switch {
		case ch.Table == nil:
		case strings.HasPrefix(ch.Name, "DOCKER"):
			docker[tableName(ch.Table)] = true
		case ch.Table.Name == "firewalld":
			keeper[tableName(ch.Table)] = Firewalld
		case strings.HasPrefix(ch.Name, "ufw-") || strings.HasPrefix(ch.Name, "ufw6-"):
			keeper[tableName(ch.Table)] = UFW
		}
	}
	var out []Chain
	for _, ch := range chains {
		if ch.Table == nil || ch.Hooknum == nil || ch.Type != nftables.ChainTypeFilter {
			continue
		}
		hook := ""
		switch *ch.Hooknum {
		case *nftables.ChainHookInput:
			hook = "input"
		case *nftables.ChainHookForward:
			hook = "forward"
		}
		// Docker sets this one itself, and lets its networks pass.
		if hook == "" || hook == "forward" && docker[tableName(ch.Table)] {
			continue
		}
		rules, err := c.GetRules(ch.Table, ch)
		if err != nil {
			return out, fmt.Errorf("list rules of %s: %w", ch.Name, err)
		}
		if ch.Policy != nil && *ch.Policy == nftables.ChainPolicyDrop || refusesRest(rules) {
			out = append(out, Chain{Table: tableName(ch.Table), Name: ch.Name, Hook: hook, Rules: len(rules), Keeper: keeper[tableName(ch.Table)]})
		}
	}
	return out, nil
}

// refusesRest reports whether the last rule refuses whatever reaches it.
func refusesRest(rules []*nftables.Rule) bool {
	if len(rules) == 0 {
		return false
	}
	exprs := slices.DeleteFunc(slices.Clone(rules[len(rules)-1].Exprs), func(e expr.Any) bool {
		switch e.(type) {
		case *expr.Counter, *expr.Log:
			return true
		}
		return false
	})
	if len(exprs) != 1 {
		return false
	}
	switch e := exprs[0].(type) {
	case *expr.Reject:
		return true
	case *expr.Verdict:
		return e.Kind == expr.VerdictDrop
	}
	return false
}

func tableName(t *nftables.Table) string {
	family := map[nftables.TableFamily]string{
		nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6", nftables.TableFamilyINet: "inet",
	}[t.Family]
	return strings.TrimSpace(family + " " + t.Name)
}

func diskFree(path string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 0, fmt.Errorf("ask for free space: %w", err)
	}
	return int64(s.Bavail) * s.Bsize, nil //nolint:gosec // a disk has less than 8 EiB
}

// hasTUN reports whether a machine whose /dev is dev has a TUN device.
func hasTUN(dev string) (bool, error) {
	if _, err := os.Stat(dev); err != nil {
		return true, err
	}
	i, err := os.Stat(filepath.Join(dev, "net", "tun"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err != nil || i.Mode()&fs.ModeCharDevice != 0, err
}
