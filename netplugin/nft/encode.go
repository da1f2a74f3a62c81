package nft

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

func itoa(n uint16) string { return strconv.Itoa(int(n)) }

// String is the table in the notation of nft(8), which reads it back.
func (r Ruleset) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table %s %s {\n", r.Family, r.Table)
	for _, s := range r.Sets {
		kind, types := "set", strings.Join(s.Key, " . ")
		if len(s.Data) > 0 {
			kind, types = "map", types+" : "+strings.Join(s.Data, " . ")
		}
		fmt.Fprintf(&b, "\t%s %s {\n\t\ttype %s\n", kind, s.Name, types)
		if s.Interval {
			b.WriteString("\t\tflags interval\n")
		}
		if len(s.Elements) > 0 {
			b.WriteString("\t\telements = {\n")
			for _, e := range s.Elements {
				fmt.Fprintf(&b, "\t\t\t%s,\n", e)
			}
			b.WriteString("\t\t}\n")
		}
		b.WriteString("\t}\n")
	}
	for _, c := range r.Chains {
		fmt.Fprintf(&b, "\tchain %s {\n", c.Name)
		if c.Hook != "" {
			fmt.Fprintf(&b, "\t\ttype %s hook %s priority %d; policy accept;\n", c.Type, c.Hook, c.Priority)
		}
		for _, rule := range c.Rules {
			fmt.Fprintf(&b, "\t\t%s\n", rule)
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// String is the rule in the notation of nft(8).
func (r Rule) String() string {
	var parts []string
	for _, s := range r {
		parts = append(parts, s.text)
	}
	return strings.Join(parts, " ")
}

// String is the element in the notation of nft(8).
func (e Element) String() string {
	s := strings.Join(e.Key, " . ")
	if len(e.Data) > 0 {
		s += " : " + strings.Join(e.Data, " . ")
	}
	return s
}

// exprs is the rule as the kernel takes it.
func (r Rule) exprs() []expr.Any {
	var all []expr.Any
	for _, s := range r {
		if s.family != 0 {
			all = append(all, NetworkProtocol(familyNames[s.family]).exprs...)
			break
		}
	}
	for _, s := range r {
		all = append(all, s.exprs...)
	}
	return all
}

var familyNames = map[byte]string{unix.NFPROTO_IPV4: "ipv4", unix.NFPROTO_IPV6: "ipv6"}

var keyTypes = map[string]nftables.SetDatatype{
	"ipv4_addr": nftables.TypeIPAddr, "ipv6_addr": nftables.TypeIP6Addr, "ifname": nftables.TypeIFName,
	"inet_proto": nftables.TypeInetProto, "inet_service": nftables.TypeInetService,
	"verdict": nftables.TypeVerdict, TypeNumber: nftables.TypeMark, "ether_addr": nftables.TypeEtherAddr,
}

func datatype(names []string) (nftables.SetDatatype, error) {
	var all []nftables.SetDatatype
	for _, n := range names {
		all = append(all, keyTypes[n])
	}
	if len(all) == 1 {
		return all[0], nil
	}
	return nftables.ConcatSetType(all...)
}

// declare makes a set for the kernel, without its elements.
func (s Set) declare(t *nftables.Table) (*nftables.Set, error) {
	key, err := datatype(s.Key)
	if err != nil {
		return nil, err
	}
	set := &nftables.Set{Table: t, Name: s.Name, KeyType: key, Interval: s.Interval, Concatenation: len(s.Key) > 1}
	if s.Key[0] == "ifname" {
		set.KeyByteOrder = binaryutil.NativeEndian
	}
	if len(s.Data) > 0 {
		set.IsMap = true
		if set.DataType, err = datatype(s.Data); err != nil {
			return nil, err
		}
	}
	return set, nil
}

// elements are the set's elements as the kernel takes them. Of an interval
// set they must be sorted; neighbours are joined.
func elements(all []Element, interval bool) ([]nftables.SetElement, error) {
	var out []nftables.SetElement
	for _, e := range all {
		if interval {
			p, err := netip.ParsePrefix(e.Key[0])
			if err != nil {
				return nil, fmt.Errorf("read element %s: %w", e, err)
			}
			start, end := p.Masked().Addr().AsSlice(), after(p)
			if n := len(out); n > 0 && out[n-1].IntervalEnd && string(out[n-1].Key) == string(start) {
				out = out[:n-1]
			} else {
				out = append(out, nftables.SetElement{Key: start})
			}
			if end.IsValid() { // the last interval of the address space has no end
				out = append(out, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
			}
			continue
		}
		x, err := element(e)
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, nil
}

// after is the first address after a prefix; not valid when there is none.
func after(p netip.Prefix) netip.Addr {
	last := p.Masked().Addr().AsSlice()
	for i, m := range mask(p) {
		last[i] |= ^m
	}
	a, _ := netip.AddrFromSlice(last)
	return a.Next()
}

func element(e Element) (nftables.SetElement, error) {
	var x nftables.SetElement
	for _, k := range e.Key {
		b, err := value(k)
		if err != nil {
			return x, fmt.Errorf("read element %s: %w", e, err)
		}
		x.Key = append(x.Key, b...)
	}
	if len(e.Data) == 1 {
		if chain, ok := strings.CutPrefix(e.Data[0], "goto "); ok {
			x.VerdictData = &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}
			return x, nil
		}
	}
	for _, d := range e.Data {
		b, err := value(d)
		if err != nil {
			return x, fmt.Errorf("read element %s: %w", e, err)
		}
		x.Val = append(x.Val, b...)
	}
	return x, nil
}

// value is one field of an element, filled up to a multiple of four bytes: an
// address, a port, a protocol, or else an interface's name.
func value(s string) ([]byte, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.AsSlice(), nil
	}
	if n, err := strconv.ParseUint(s, 10, 16); err == nil {
		return append(binaryutil.BigEndian.PutUint16(uint16(n)), 0, 0), nil
	}
	if b, ok := number(s); ok {
		return b, nil
	}
	if b, ok := hardwareAddress(s); ok {
		return b, nil
	}
	switch s {
	case "tcp":
		return []byte{unix.IPPROTO_TCP, 0, 0, 0}, nil
	case "udp":
		return []byte{unix.IPPROTO_UDP, 0, 0, 0}, nil
	case "sctp":
		return []byte{unix.IPPROTO_SCTP, 0, 0, 0}, nil
	}
	if len(s) == 0 || len(s) >= ifname {
		return nil, fmt.Errorf("%q is no interface name", s)
	}
	return append([]byte(s), make([]byte, ifname-len(s))...), nil
}
