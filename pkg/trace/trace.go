package trace

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"clocker.io/clocker/pkg/hostview"
)

// The kinds of hop, in the order in which a connection meets them.
const (
	HopName     = "name"
	HopService  = "service"
	HopHost     = "host"
	HopRule     = "rule"
	HopRoute    = "route"
	HopCarrier  = "carrier"
	HopEndpoint = "endpoint"
	HopPort     = "port"
)

// The states of a hop.
const (
	StateOK     = "ok"
	StateBroken = "broken"
	// StateUnknown is a hop that cannot be looked at from outside.
	StateUnknown = "unknown"
)

// Hop is one thing that a connection depends on.
type Hop struct {
	// Kind is one of the Hop constants, State one of the State constants.
	Kind  string `json:"kind"`
	State string `json:"state"`
	// Host is the name of the host on which it was looked at; empty when that
	// was in etcd.
	Host string `json:"host,omitempty"`
	// Text says what was found, Hint what to do about it.
	Text string `json:"text"`
	Hint string `json:"hint,omitempty"`
}

// Result is a connection followed as far as it goes.
type Result struct {
	From     string `json:"from"`
	To       string `json:"to"`
	Protocol string `json:"protocol"`
	Port     uint16 `json:"port,omitempty"`
	// Hops end with the first that is broken, if one is.
	Hops []Hop `json:"hops"`
	// Same are the other replicas of a service to which the way is as good.
	Same []string `json:"same,omitempty"`
	// Away are replicas of a service that get no connections, with the reason.
	Away []string `json:"away,omitempty"`
}

// Broken is the first broken hop, nil when there is none.
func (r Result) Broken() *Hop {
	for i := range r.Hops {
		if r.Hops[i].State == StateBroken {
			return &r.Hops[i]
		}
	}
	return nil
}

// Plan says what must be asked of which host before a connection can be
// followed.
type Plan struct {
	query    Query
	from, to Party
	// broken is why there is nothing to follow.
	broken []Hop
	paths  []path
}

// path is the way from one place to another.
type path struct {
	from, to Place
	// vip is the address that the connection is made to, if that is not to's.
	vip netip.Addr
}

// Asked is a question to a host.
type Asked struct {
	// Host is the host's id.
	Host     string
	Question hostview.Question
}

// Answer is a host's view, or why there is none.
type Answer struct {
	View  *hostview.View
	Error string
}

// Prepare works out who is meant by a query.
func Prepare(f Fleet, q Query) Plan {
	p := Plan{query: q}
	from, hop := f.find(q.From)
	if hop != nil {
		p.broken = append(p.broken, *hop)
	}
	to, hop := f.find(q.To)
	if hop != nil {
		p.broken = append(p.broken, *hop)
	}
	p.from, p.to = from, to
	if len(p.broken) > 0 {
		return p
	}
	p.paths = pair(from, to)
	if len(p.paths) == 0 {
		p.broken = append(p.broken, *broken(HopName, "", fmt.Sprintf("%s and %s have no addresses of one family: %s; %s",
			from.Name, to.Name, addresses(from), addresses(to)), "put both on one network"))
	}
	return p
}

// Questions are what hosts must be asked, each once.
func (p Plan) Questions() []Asked {
	var out []Asked
	for _, w := range p.paths {
		for _, host := range []string{w.from.Host, w.to.Host} {
			for _, q := range w.questions(p.query) {
				if a := (Asked{host, q}); host != "" && !slices.Contains(out, a) {
					out = append(out, a)
				}
			}
		}
	}
	return out
}

// question is the packet as it is after a service's address was translated,
// and the one before that.
func (w path) question(q Query) hostview.Question {
	return hostview.Question{From: w.from.Address, To: w.to.Address, Protocol: q.protocol(), Port: q.Port}
}

func (w path) questions(q Query) []hostview.Question {
	out := []hostview.Question{w.question(q)}
	if w.vip.IsValid() {
		v := out[0]
		v.To = w.vip
		out = append(out, v)
	}
	return out
}

// pair chooses, for each place that is to be reached, where the connection
// comes from: from the same network if possible, else any address of the same
// family.
func pair(from, to Party) []path {
	var out []path
	best := map[string]int{} // by name of what is reached
	for _, t := range to.Places {
		for _, s := range from.Places {
			worth := worth(s, t)
			if worth == 0 {
				continue
			}
			w := path{from: s, to: t}
			for _, v := range to.VIPs[t.Network] {
				if v.Is4() == t.Address.Is4() {
					w.vip = v
				}
			}
			i := slices.IndexFunc(out, func(o path) bool { return o.to.Name == t.Name && o.to.Host == t.Host })
			switch {
			case i < 0:
				out = append(out, w)
			case worth > best[t.Name+"@"+t.Host]:
				out[i] = w
			default:
				continue
			}
			best[t.Name+"@"+t.Host] = worth
		}
	}
	return out
}

// worth orders pairs of places: 0 cannot talk, more is better.
func worth(s, t Place) int {
	switch {
	case s.Address.Is4() != t.Address.Is4():
		return 0
	case s.Network == t.Network:
		return 3
	case s.Network != "":
		return 2
	}
	return 1
}

func addresses(p Party) string {
	var all []string
	for _, place := range p.Places {
		all = append(all, place.Address.String())
	}
	if len(all) == 0 {
		return p.Name + " has none"
	}
	return p.Name + " has " + strings.Join(all, ", ")
}

// Follow follows the connection with what the hosts answered. Of several
// replicas it shows the first to which the way is broken, else the first.
func Follow(f Fleet, p Plan, answers map[Asked]Answer) Result {
	r := Result{From: p.query.From, To: p.query.To, Protocol: p.query.protocol(), Port: p.query.Port, Away: p.to.Missing}
	if len(p.broken) > 0 {
		r.Hops = p.broken
		return r
	}
	shown := -1
	var ways [][]Hop
	for i, w := range p.paths {
		hops := walker{f: f, plan: p, path: w, answers: answers}.walk()
		ways = append(ways, hops)
		if shown < 0 && hops[len(hops)-1].State == StateBroken {
			shown = i
		}
	}
	if shown < 0 {
		shown = 0
	}
	r.Hops = ways[shown]
	for i, hops := range ways {
		if i != shown && hops[len(hops)-1].State != StateBroken {
			r.Same = append(r.Same, p.paths[i].to.Name)
		}
	}
	return r
}

func broken(kind, host, text, hint string) *Hop {
	return &Hop{Kind: kind, State: StateBroken, Host: host, Text: text, Hint: hint}
}
