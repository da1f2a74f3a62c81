package dnsupdate

import (
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// mine is the content of the TXT record that says whose a name is.
func mine(fleet string) string { return "heritage=clocker,fleet=" + fleet }

// ours are the types of records that are made; all others at a name stay.
var ours = []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypePTR}

// content sorts a zone's records into those at names of ours and the names
// that somebody else has.
func content(fleet string, rrs []dns.RR) (have Set, taken map[string]bool) {
	have, taken = Set{}, map[string]bool{}
	marked := map[string]bool{}
	for _, rr := range rrs {
		if t, ok := rr.(*dns.TXT); ok && strings.Join(t.Txt, "") == mine(fleet) {
			marked[dns.CanonicalName(t.Hdr.Name)] = true
		}
	}
	for _, rr := range rrs {
		owner := dns.CanonicalName(rr.Header().Name)
		if !marked[owner] {
			taken[owner] = true
			continue
		}
		if _, ok := have[owner]; !ok {
			have[owner] = nil
		}
		if slices.Contains(ours, rr.Header().Rrtype) {
			have[owner] = append(have[owner], normal(rr))
		}
	}
	for _, rrs := range have {
		slices.Sort(rrs)
	}
	return have, taken
}

// normal is a record's text with names as we write them.
func normal(rr dns.RR) string {
	rr = dns.Copy(rr)
	rr.Header().Name = dns.CanonicalName(rr.Header().Name)
	switch rr := rr.(type) {
	case *dns.SRV:
		rr.Target = dns.CanonicalName(rr.Target)
	case *dns.PTR:
		rr.Ptr = dns.CanonicalName(rr.Ptr)
	}
	return rr.String()
}

// change is what must be done about one name.
type change struct {
	owner string
	// fresh says that nothing is there yet.
	fresh bool
	// records are what it shall have; none takes the name away.
	records []string
}

// compare says what turns have into want, and which names of want somebody
// else has. Both are sorted.
func compare(want, have Set, taken map[string]bool) (changes []change, refused []string) {
	for owner, rrs := range want {
		old, there := have[owner]
		switch {
		case taken[owner]:
			refused = append(refused, owner)
		case !there || !slices.Equal(old, rrs):
			changes = append(changes, change{owner: owner, fresh: !there, records: rrs})
		}
	}
	for owner := range have {
		if _, ok := want[owner]; !ok {
			changes = append(changes, change{owner: owner})
		}
	}
	slices.SortFunc(changes, func(a, b change) int { return strings.Compare(a.owner, b.owner) })
	slices.Sort(refused)
	return changes, refused
}

// message is the update that carries out a change. Its prerequisites hold only
// while the name is ours, or, for a fresh one, nobody's.
func (c change) message(zone, fleet string) (*dns.Msg, error) {
	m := new(dns.Msg)
	m.SetUpdate(zone)
	// A record of its own each time: the message's parts change their headers.
	mark := func() []dns.RR {
		return []dns.RR{&dns.TXT{Hdr: header(c.owner, dns.TypeTXT), Txt: []string{mine(fleet)}}}
	}
	if c.fresh {
		m.NameNotUsed(mark())
	} else {
		m.Used(mark())
		for _, typ := range ours {
			m.RemoveRRset([]dns.RR{&dns.ANY{Hdr: dns.RR_Header{Name: c.owner, Rrtype: typ}}})
		}
	}
	if len(c.records) == 0 {
		m.Remove(mark())
		return m, nil
	}
	add := mark()
	for _, text := range c.records {
		rr, err := dns.NewRR(text)
		if err != nil {
			return nil, err
		}
		add = append(add, rr)
	}
	m.Insert(add)
	return m, nil
}
