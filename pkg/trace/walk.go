package trace

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"clocker.io/clocker/pkg/hostview"
)

// walker follows one path. Its hops end with the first that is broken.
type walker struct {
	f       Fleet
	plan    Plan
	path    path
	answers map[Asked]Answer
}

// look is one part of the walk: what was found, and whether to go on.
type look func(walker) []Hop

// walk looks at one thing after the other until one is broken.
func (w walker) walk() []Hop {
	var out []Hop
	for _, l := range []look{
		walker.names, walker.service, walker.source, walker.leave, walker.route, walker.carrier,
		walker.destination, walker.enter, walker.endpoint,
	} {
		for _, h := range l(w) {
			out = append(out, h)
			if h.State == StateBroken {
				return out
			}
		}
	}
	return out
}

func fine(kind, host, text string) []Hop {
	return []Hop{{Kind: kind, State: StateOK, Host: host, Text: text}}
}

func bad(kind, host, text, hint string) []Hop { return []Hop{*broken(kind, host, text, hint)} }

func (w walker) fromHost() string { return w.f.hostName(w.path.from.Host) }
func (w walker) toHost() string   { return w.f.hostName(w.path.to.Host) }

// view is what a host answered about the packet to an address.
func (w walker) view(host string, to netip.Addr) Answer {
	q := w.path.question(w.plan.query)
	q.To = to
	return w.answers[Asked{host, q}]
}

func (w walker) from() *hostview.View { return w.view(w.path.from.Host, w.path.to.Address).View }
func (w walker) to() *hostview.View   { return w.view(w.path.to.Host, w.path.to.Address).View }

// names says who the two parties are.
func (w walker) names() []Hop {
	var out []Hop
	for _, x := range []struct {
		party Party
		place Place
	}{{w.plan.from, w.path.from}, {w.plan.to, w.path.to}} {
		if x.place.Network != "" && x.place.Host == "" {
			return append(out, bad(HopName, "", fmt.Sprintf("%s is in network %s, and nothing has that address", x.place.Address, w.f.networkName(x.place.Network)),
				"docker clocker network inspect "+w.f.networkName(x.place.Network)+" shows the addresses in use")...)
		}
		out = append(out, fine(HopName, "", w.describe(x.party, x.place))...)
	}
	return out
}

func (w walker) describe(p Party, at Place) string {
	if p.Kind == KindOutside {
		return fmt.Sprintf("%s is outside the fleet's networks", at.Address)
	}
	where := "on host " + w.f.hostName(at.Host)
	if at.Network != "" {
		where = fmt.Sprintf("in network %s on host %s", w.f.networkName(at.Network), w.f.hostName(at.Host))
	}
	switch p.Kind {
	case KindService:
		return fmt.Sprintf("%s is a service; its replica %s has %s %s", p.Name, at.Name, at.Address, where)
	case KindHost:
		if at.Network == "" {
			return fmt.Sprintf("%s is a host with %s", p.Name, at.Address)
		}
	}
	return fmt.Sprintf("%s is a %s with %s %s", p.Name, p.Kind, at.Address, where)
}

// service looks at the translation of a service's own address on the host of
// whoever calls.
func (w walker) service() []Hop {
	if w.plan.to.Kind != KindService {
		return nil
	}
	if !w.path.vip.IsValid() {
		return fine(HopService, "", fmt.Sprintf("%s has no address of its own here: its name leads to its replicas", w.plan.to.Name))
	}
	a := w.view(w.path.from.Host, w.path.vip)
	switch {
	case w.path.from.Host == "":
		return bad(HopService, "", fmt.Sprintf("%s is translated on the fleet's hosts only", w.path.vip), "publish a port of the service")
	case a.View == nil:
		return w.silent(w.path.from.Host, a.Error)
	case !a.View.Balanced:
		return bad(HopService, w.fromHost(), fmt.Sprintf("the host does not know the service address %s", w.path.vip),
			"docker clocker doctor --fix --host "+w.fromHost())
	case len(a.View.Backends) == 0:
		return bad(HopService, w.fromHost(), fmt.Sprintf("service address %s leads to no replica", w.path.vip), "docker clocker doctor --fix --host "+w.fromHost())
	case !slices.Contains(a.View.Backends, w.path.to.Address):
		return bad(HopService, w.fromHost(), fmt.Sprintf("service address %s leads to %s and not to %s, which is healthy", w.path.vip, list(a.View.Backends), w.path.to.Address),
			"docker clocker doctor --fix --host "+w.fromHost())
	}
	return fine(HopService, w.fromHost(), fmt.Sprintf("service address %s leads to %s", w.path.vip, list(a.View.Backends)))
}

func list(all []netip.Addr) string {
	var out []string
	for _, a := range all {
		out = append(out, a.String())
	}
	return strings.Join(out, ", ")
}

// silent is a host that does not answer.
func (w walker) silent(host, why string) []Hop {
	name := w.f.hostName(host)
	if !w.f.Hosts[host].Up {
		return bad(HopHost, name, "the host does not answer: its agent has not been heard of", "start the host, or look at docker logs clocker-agent there")
	}
	if why == "" {
		why = "it was not asked"
	}
	return bad(HopHost, name, "the host's network plugin does not answer: "+why, "look at docker plugin ls on the host, and at docker clocker doctor --host "+name)
}

// source checks that the caller's endpoint is where it should be.
func (w walker) source() []Hop {
	p := w.path.from
	if p.Host == "" {
		return nil // outside
	}
	v := w.from()
	if v == nil {
		return w.silent(p.Host, w.view(p.Host, w.path.to.Address).Error)
	}
	if p.Network == "" {
		return nil // the host itself
	}
	return w.attached(p, v.From)
}

// attached judges the endpoint at a place.
func (w walker) attached(p Place, e *hostview.Endpoint) []Hop {
	host := w.f.hostName(p.Host)
	switch {
	case e == nil:
		return bad(HopEndpoint, host, fmt.Sprintf("%s should have %s here, and the host has no such endpoint", p.Name, p.Address),
			"docker clocker doctor --fix --host "+host+", or start the container again")
	case e.Problem != "":
		return bad(HopEndpoint, host, fmt.Sprintf("%s has %s, but %s", p.Name, p.Address, e.Problem),
			"docker clocker doctor --fix --host "+host+", or start the container again")
	}
	return fine(HopEndpoint, host, fmt.Sprintf("%s has %s on link %s, which is up", p.Name, p.Address, e.Link))
}

// leave judges the packet filter where the packet begins.
func (w walker) leave() []Hop {
	v := w.from()
	if v == nil || v.Leave == nil {
		return nil
	}
	return w.verdict(w.fromHost(), *v.Leave)
}

func (w walker) verdict(host string, v hostview.Verdict) []Hop {
	if v.Open {
		return fine(HopRule, host, v.Reason)
	}
	return bad(HopRule, host, v.Reason, w.opening())
}

// opening says how a closed way is opened.
func (w walker) opening() string {
	from, to, port := w.path.from, w.path.to, ""
	if w.plan.query.Port != 0 {
		port = fmt.Sprintf(":%d/%s", w.plan.query.Port, w.plan.query.protocol())
	}
	switch {
	case from.Network == "" && to.Network != "" && from.Host != "":
		return fmt.Sprintf("docker clocker network attach %s --host %s", w.f.networkName(to.Network), w.fromHost())
	case from.Network == "" && to.Network != "":
		return "publish a port of the container or service"
	case from.Network != "" && to.Network != "" && from.Network != to.Network:
		return fmt.Sprintf("docker clocker network rule add %s %s%s, or put both on one network", w.f.networkName(from.Network), w.f.networkName(to.Network), port)
	case from.Network != "" && to.Network == "" && to.Host != "":
		return fmt.Sprintf("docker clocker network rule add %s host:%s%s, or docker clocker network attach %[1]s --host %[2]s and its address there",
			w.f.networkName(from.Network), w.toHost(), port)
	}
	return ""
}

// route judges the way that the kernel takes.
func (w walker) route() []Hop {
	v := w.from()
	if v == nil || v.Route == nil {
		return nil
	}
	r, to := v.Route, w.path.to
	hint := "docker clocker doctor --fix --host " + w.fromHost()
	switch {
	case r.Error != "":
		return bad(HopRoute, w.fromHost(), fmt.Sprintf("no route to %s: %s", to.Address, r.Error), hint)
	case r.Kind != "unicast" && r.Kind != "local":
		text := fmt.Sprintf("the route to %s is %s", to.Address, r.Kind)
		if to.Network != "" && !w.owned(to) {
			text += ": no host owns the block of addresses it is in"
		}
		return bad(HopRoute, w.fromHost(), text, hint)
	}
	text := fmt.Sprintf("route to %s", to.Address)
	if r.Destination != "" && r.Destination != netip.PrefixFrom(to.Address, to.Address.BitLen()).String() {
		text += " (" + r.Destination + ")"
	}
	switch {
	case r.Kind == "local":
		text += " ends on this host"
	case r.Gateway != "":
		text += fmt.Sprintf(" by %s on %s", r.Gateway, r.Link)
	default:
		text += " on " + r.Link
	}
	return fine(HopRoute, w.fromHost(), text)
}

func (w walker) owned(p Place) bool {
	for b := range w.f.Blocks[p.Network] {
		if b.Contains(p.Address) {
			return true
		}
	}
	return false
}

// carrier judges the way between the two hosts.
func (w walker) carrier() []Hop {
	from, to := w.path.from, w.path.to
	if from.Host == "" || to.Host == "" || from.Host == to.Host {
		return nil
	}
	if !w.f.Hosts[to.Host].Up {
		return w.silent(to.Host, "")
	}
	v := w.from()
	if v == nil || to.Network == "" {
		return nil
	}
	switch y := v.Way; {
	case y == nil:
		return bad(HopCarrier, w.fromHost(), fmt.Sprintf("the host knows no way to host %s", w.toHost()),
			"docker clocker doctor --host "+w.fromHost()+" --host "+w.toHost())
	case y.Problem != "":
		return bad(HopCarrier, w.fromHost(), fmt.Sprintf("%s to host %s (%s) is down: %s", carrierName(y.Carrier), w.toHost(), y.Address, y.Problem),
			"docker clocker doctor --fix --host "+w.fromHost()+" --host "+w.toHost())
	default:
		text := fmt.Sprintf("%s to host %s (%s)", carrierName(y.Carrier), w.toHost(), y.Address)
		if y.Link != "" {
			text += " by " + y.Link
		}
		if y.MTU > 0 {
			text += fmt.Sprintf(", packets of up to %d bytes", y.MTU)
		}
		return fine(HopCarrier, w.fromHost(), text)
	}
}

func carrierName(s string) string {
	if s == "" {
		return "the carrier"
	}
	return "carrier " + s
}

// destination checks that the other host answers.
func (w walker) destination() []Hop {
	to := w.path.to
	if to.Host == "" || w.to() != nil {
		return nil
	}
	return w.silent(to.Host, w.view(to.Host, to.Address).Error)
}

// enter judges the packet filter where the packet ends.
func (w walker) enter() []Hop {
	v := w.to()
	if v == nil || v.Enter == nil {
		return nil
	}
	return w.verdict(w.toHost(), *v.Enter)
}

// endpoint is the last hop.
func (w walker) endpoint() []Hop {
	to, q := w.path.to, w.plan.query
	listening := func(where string) []Hop {
		if q.Port == 0 {
			return nil
		}
		return []Hop{{Kind: HopPort, State: StateUnknown, Text: fmt.Sprintf("whether anything listens on %s port %d is seen only %s", q.protocol(), q.Port, where)}}
	}
	switch {
	case to.Host == "":
		return []Hop{{Kind: HopEndpoint, State: StateUnknown, Text: fmt.Sprintf("what %s does is not the fleet's to know", to.Address)}}
	case to.Network == "":
		return listening("on the host")
	}
	hops := w.attached(to, w.to().To)
	if hops[0].State == StateBroken {
		return hops
	}
	return append(hops, listening("in the container")...)
}
