package placement

import (
	"strconv"
)

// calls is what a call of Place keeps while it runs.
type calls struct {
	placing bool
	log     []change
	classes []*class // the last used first
	spare   []*class
}

// change is a replica more or less on a host.
type change struct{ host, service, n int32 }

// mostClasses bounds the classes that a call keeps at once.
const mostClasses = 16

// note logs a change while a call runs.
func (f *Fleet) note(host, service, n int32) {
	if f.placing {
		f.log = append(f.log, change{host, service, n})
	}
}

// Place decides all requests of a call in order. Hosts are not changed.
func Place(hosts []Host, requests []Request) []Decision {
	return NewFleet(Policy{}, hosts).Place(requests)
}

// Place decides all requests in order and reserves what it decides: under the
// request's Task, or under a name made for it, as the decision says. RemoveTask
// of that name gives it back; PutTask of it puts the real task in its place.
func (f *Fleet) Place(requests []Request) []Decision {
	f.begin()
	defer f.end()
	out := make([]Decision, len(requests))
	for i := range requests {
		f.place(&requests[i], &out[i])
	}
	return out
}

func (f *Fleet) begin() {
	f.sort()
	f.placing, f.log = true, f.log[:0]
}

// end gives the classes' memory back for the next call; what they refer to is
// the caller's and is let go.
func (f *Fleet) end() {
	f.placing = false
	for _, c := range f.classes {
		f.retire(c)
	}
	f.classes = f.classes[:0]
}

func (f *Fleet) retire(c *class) {
	c.req, c.refusals, c.levels, c.lesser, c.rolled = Request{}, nil, nil, nil, nil
	clear(c.filters)
	clear(c.moving)
	clear(c.wishes)
	clear(c.sorters)
	clear(c.ranking)
	f.spare = append(f.spare, c)
}

// classOf finds the class of a request, or makes it.
func (f *Fleet) classOf(r *Request) *class {
	for i, c := range f.classes {
		if alike(&c.req, r) {
			copy(f.classes[1:i+1], f.classes[:i])
			f.classes[0] = c
			return c
		}
	}
	if n := len(f.classes); n == mostClasses {
		f.retire(f.classes[n-1])
		f.classes = f.classes[:n-1]
	}
	c := &class{}
	if n := len(f.spare); n > 0 {
		c, f.spare = f.spare[n-1], f.spare[:n-1]
	}
	f.compile(c, r)
	f.classes = append(f.classes, nil)
	copy(f.classes[1:], f.classes)
	f.classes[0] = c
	return c
}

func (f *Fleet) place(r *Request, d *Decision) {
	d.Request = *r
	if len(f.order) == 0 {
		return
	}
	c := f.classOf(r)
	h := c.choose(r.Prefer)
	if h < 0 {
		d.Refusals = c.refuse()
		return
	}
	d.Host = f.machines[h].ID
	d.Reason = c.because(h, r)
	f.reserve(c, h, r, d)
}

// reserve takes what a decision needs.
func (f *Fleet) reserve(c *class, h int32, r *Request, d *Decision) {
	if c.rolled != nil {
		c.rolled(h)
	}
	if d.Task = r.Task; d.Task == "" {
		d.Task = f.reservation()
	}
	f.RemoveTask(d.Task)
	m := &f.machines[h]
	var held []port
	if len(r.Ports) > 0 {
		d.Ports, held = m.ports.decide(r.Ports, r.App+"/"+r.Service)
	}
	var devices, generic map[string]int64
	if len(r.Resources.Devices)+len(r.Resources.Generic) > 0 {
		devices, generic = Taken(m.Host, r.Resources)
	}
	t := f.newTask(h, d.Task, c.ref, c.need)
	if len(held)+len(devices)+len(generic) > 0 {
		t.more = &extras{devices: devices, generic: generic}
		if len(devices)+len(generic) > 0 {
			m.hold(t, 1, "")
		}
		t.more.ports = held // decide has taken them
	}
}

// because says why a host was chosen.
func (c *class) because(h int32, r *Request) string {
	f := c.fleet
	if r.Prefer != "" && r.Prefer == f.machines[h].ID {
		return "it runs there already"
	}
	if len(c.ranking) == 1 && c.ranking[0].name == leastLoaded && len(c.wishes)+len(c.levels) == 0 {
		b := make([]byte, 0, 96)
		b = append(b, "least loaded: "...)
		b = strconv.AppendInt(b, int64(f.services.all[c.ref.service].get(h)), 10)
		b = append(b, " of this service, "...)
		b = strconv.AppendInt(b, int64(f.apps.all[c.ref.app].get(h)), 10)
		b = append(b, " of this application, "...)
		b = strconv.AppendInt(b, int64(int(f.loads[h].containers)), 10)
		return string(append(b, " in all"...))
	}
	text := ""
	for i, p := range c.score(h) {
		if i > 0 {
			text += ", "
		}
		text += p.Name + ": " + p.Text
	}
	return text
}
