package placement

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"clocker.io/clocker/pkg/model"
)

// DynamicPorts is the range that a HostPort of 0 is taken from. It lies below
// the kernel's ephemeral ports, so outgoing connections never meet it.
const (
	DynamicPortFirst = 30000
	DynamicPortLast  = 32767

	dynamicPorts = DynamicPortLast - DynamicPortFirst + 1
)

// PortKey names a host port in [Host.Ports].
func PortKey(p model.Port) string {
	if everyAddress(p.HostIP) {
		return p.Protocol + "/" + strconv.Itoa(int(p.HostPort))
	}
	return p.Protocol + "/" + p.HostIP + ":" + strconv.Itoa(int(p.HostPort))
}

func everyAddress(ip string) bool { return ip == "" || ip == "0.0.0.0" || ip == "::" }

// port is a protocol and a number on one address, or on every one when ip is
// empty.
type port struct {
	number uint32 // the protocol's number in the upper half
	ip     string
}

var protocols = []string{"tcp", "udp", "sctp"}

// protocol numbers a protocol; those not known are taken for one.
func protocol(name string) uint32 {
	if i := slices.Index(protocols, name); i >= 0 {
		return uint32(i)
	}
	return uint32(len(protocols))
}

func portOf(p model.Port) port {
	if everyAddress(p.HostIP) {
		p.HostIP = ""
	}
	return port{protocol(p.Protocol)<<16 | uint32(p.HostPort), p.HostIP}
}

// parsePort reads what PortKey writes.
func parsePort(key string) (port, bool) {
	proto, rest, _ := strings.Cut(key, "/")
	ip, digits := "", rest
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		ip, digits = rest[:i], rest[i+1:]
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	return portOf(model.Port{Protocol: proto, HostIP: ip, HostPort: uint16(n)}), err == nil
}

// taken is a port that is held, by one or by several.
type taken struct {
	port
	holders int32
	holder  string // the first
}

// ports are the taken ports of a host, in order.
type ports struct {
	all []taken
	// dynamic has, by protocol, a bit for each port of the range that is taken.
	dynamic [4]set
}

// at is where a number's ports begin.
func (t *ports) at(number uint32) int {
	lo, hi := 0, len(t.all)
	for lo < hi {
		if m := (lo + hi) / 2; t.all[m].number < number {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo
}

// clash is who holds a port on the same address, on every address, or, when p
// is for every address, on any; nil when it is free.
func (t *ports) clash(p port) *taken {
	for i := t.at(p.number); i < len(t.all) && t.all[i].number == p.number; i++ {
		if h := &t.all[i]; p.ip == "" || h.ip == "" || h.ip == p.ip {
			return h
		}
	}
	return nil
}

func (t *ports) take(p port, holder string) {
	i := t.at(p.number)
	for ; i < len(t.all) && t.all[i].number == p.number; i++ {
		if t.all[i].ip == p.ip {
			t.all[i].holders++
			return
		}
	}
	t.all = slices.Insert(t.all, i, taken{p, 1, holder})
	t.mark(p.number, true)
}

func (t *ports) release(p port) {
	for i := t.at(p.number); i < len(t.all) && t.all[i].number == p.number; i++ {
		if t.all[i].ip != p.ip {
			continue
		}
		if t.all[i].holders--; t.all[i].holders == 0 {
			t.all = slices.Delete(t.all, i, i+1)
			t.mark(p.number, t.clash(port{number: p.number}) != nil)
		}
		return
	}
}

func (t *ports) mark(number uint32, on bool) {
	n := int32(number&0xffff) - DynamicPortFirst
	if n < 0 || n >= dynamicPorts {
		return
	}
	d := &t.dynamic[number>>16]
	if *d == nil {
		*d = newSet(dynamicPorts)
	}
	if on {
		d.put(n)
	} else {
		d.drop(n)
	}
}

// free is how many ports of the range are free for a protocol.
func (t *ports) free(protocol uint32) int { return dynamicPorts - t.dynamic[protocol].size() }

// lowest is the lowest free port of the range; 0 when none is.
func (t *ports) lowest(protocol uint32) uint16 {
	d := t.dynamic[protocol]
	if d == nil {
		return DynamicPortFirst
	}
	for i, w := range d {
		if n := i<<6 + bits.TrailingZeros64(^w); ^w != 0 && n < dynamicPorts {
			return uint16(DynamicPortFirst + n)
		}
	}
	return 0
}

// asked are the ports of a request.
type asked struct {
	fixed   []port
	dynamic [4]int
	// twice is a port that the request itself has twice; "" when there is none.
	twice string
}

func askedPorts(all []model.Port) asked {
	var a asked
	var own ports
	for _, p := range all {
		q := portOf(p)
		if p.HostPort == 0 {
			a.dynamic[q.number>>16]++
			continue
		}
		if own.clash(q) != nil {
			a.twice = PortKey(p)
		}
		own.take(q, "")
		a.fixed = append(a.fixed, q)
	}
	return a
}

// fits reports whether all that is asked for is free.
func (t *ports) fits(a *asked) bool {
	for _, p := range a.fixed {
		if t.clash(p) != nil {
			return false
		}
	}
	for proto, n := range a.dynamic {
		if n > 0 && t.room(a, uint32(proto)) < n {
			return false
		}
	}
	return true
}

// room is how many ports of the range are free beside the fixed ones that the
// request itself asks for.
func (t *ports) room(a *asked, proto uint32) int {
	n := t.free(proto)
	for _, p := range a.fixed {
		if at := int(p.number&0xffff) - DynamicPortFirst; p.number>>16 == proto && at >= 0 && at < dynamicPorts {
			n--
		}
	}
	return n
}

// times is how often a request that fits would.
func (t *ports) times(a *asked) int {
	if len(a.fixed) > 0 {
		return 1
	}
	n := dynamicPorts
	for proto, each := range a.dynamic {
		if each > 0 {
			n = min(n, t.free(uint32(proto))/each)
		}
	}
	return n
}

// why says what is not free; the group leaves out who has it.
func (t *ports) why(a *asked) (reason, group string) {
	for _, p := range a.fixed {
		if h := t.clash(p); h != nil {
			group = "port " + h.String() + " is taken"
			return group + " by " + h.holder, group
		}
	}
	text := fmt.Sprintf("no port between %d and %d is free", DynamicPortFirst, DynamicPortLast)
	for proto, n := range a.dynamic {
		if free := t.room(a, uint32(proto)); free > 0 && free < n {
			text = fmt.Sprintf("%d ports between %d and %d are asked, %d are free", n, DynamicPortFirst, DynamicPortLast, free)
		}
	}
	return text, ""
}

// decide takes ports for a replica and returns them with every number decided,
// and as they are held.
func (t *ports) decide(all []model.Port, holder string) (decided []model.Port, held []port) {
	decided, held = slices.Clone(all), make([]port, len(all))
	for i, p := range all {
		if p.HostPort != 0 {
			held[i] = portOf(p)
			t.take(held[i], holder)
		}
	}
	for i, p := range all {
		if p.HostPort == 0 {
			decided[i].HostPort = t.lowest(protocol(p.Protocol))
			held[i] = portOf(decided[i])
			t.take(held[i], holder)
		}
	}
	return decided, held
}

// String is the port as PortKey has it.
func (p port) String() string {
	name := "other"
	if i := int(p.number >> 16); i < len(protocols) {
		name = protocols[i]
	}
	return PortKey(model.Port{Protocol: name, HostIP: p.ip, HostPort: uint16(p.number)})
}
