package placement

import (
	"fmt"
	"maps"

	"clocker.io/clocker/pkg/model"
)

// candidate is a host with what this call has reserved on it so far.
type candidate struct {
	host  *Host
	ports map[string]string
	// byService and byApp count the replicas per "app/service" and app.
	byService, byApp map[string]int
	total            int
	nextDynamic      int
}

func newCandidate(h *Host) *candidate {
	c := &candidate{host: h, ports: maps.Clone(h.Ports), byService: map[string]int{}, byApp: map[string]int{}, nextDynamic: DynamicPortFirst}
	if c.ports == nil {
		c.ports = map[string]string{}
	}
	for _, t := range h.Tasks {
		c.count(t.App, t.Service)
	}
	return c
}

func (c *candidate) count(app, service string) {
	c.byService[app+"/"+service]++
	c.byApp[app]++
	c.total++
}

// filter refuses a host with a reason a user can read, or returns "".
type filter struct {
	name  string
	check func(*candidate, *Request) string
}

// filters run in order; the first refusal counts.
var filters = []filter{
	{"host-up", func(c *candidate, _ *Request) string {
		if !c.host.Up {
			return "its agent does not answer"
		}
		return ""
	}},
	{"cordoned", func(c *candidate, _ *Request) string {
		if c.host.Cordoned {
			return "it is cordoned"
		}
		return ""
	}},
	{"pinned", func(c *candidate, r *Request) string {
		if r.Host != "" && r.Host != c.host.Name {
			return "the service is pinned to host " + r.Host
		}
		return ""
	}},
	{"port-free", portFree},
}

func refuse(c *candidate, r *Request) (name, reason string) {
	for _, f := range filters {
		if reason := f.check(c, r); reason != "" {
			return f.name, reason
		}
	}
	return "", ""
}

func portFree(c *candidate, r *Request) string {
	dynamic := 0
	for _, p := range r.Ports {
		if p.HostPort == 0 {
			dynamic++
			continue
		}
		if key, holder, taken := c.portTaken(p); taken {
			return fmt.Sprintf("port %s is taken by %s", key, holder)
		}
	}
	if dynamic > 0 {
		free := 0
		for n := DynamicPortFirst; n <= DynamicPortLast && free < dynamic; n++ {
			if _, _, taken := c.portTaken(model.Port{HostPort: uint16(n), Protocol: "tcp"}); !taken {
				free++
			}
		}
		if free < dynamic {
			return fmt.Sprintf("no port between %d and %d is free", DynamicPortFirst, DynamicPortLast)
		}
	}
	return ""
}

// portTaken reports who holds a host port: on the same address, on every
// address, or, when p asks for every address, on any.
func (c *candidate) portTaken(p model.Port) (key, holder string, taken bool) {
	any := PortKey(model.Port{Protocol: p.Protocol, HostPort: p.HostPort})
	if h, ok := c.ports[any]; ok {
		return any, h, true
	}
	if p.HostIP != "" {
		key = PortKey(p)
		h, ok := c.ports[key]
		return key, h, ok
	}
	suffix := fmt.Sprintf(":%d", p.HostPort)
	for k, h := range c.ports {
		if len(k) > len(suffix) && k[len(k)-len(suffix):] == suffix && k[:len(p.Protocol)+1] == p.Protocol+"/" {
			return k, h, true
		}
	}
	return "", "", false
}

// PortKey names a host port in [Host.Ports].
func PortKey(p model.Port) string {
	if p.HostIP == "" || p.HostIP == "0.0.0.0" || p.HostIP == "::" {
		return fmt.Sprintf("%s/%d", p.Protocol, p.HostPort)
	}
	return fmt.Sprintf("%s/%s:%d", p.Protocol, p.HostIP, p.HostPort)
}

// reserve takes what the request needs and returns its ports decided.
func (c *candidate) reserve(r *Request) []model.Port {
	c.count(r.App, r.Service)
	if len(r.Ports) == 0 {
		return nil
	}
	out := make([]model.Port, len(r.Ports))
	for i, p := range r.Ports {
		for n := c.nextDynamic; p.HostPort == 0 && n <= DynamicPortLast; n++ {
			try := model.Port{HostPort: uint16(n), Protocol: p.Protocol}
			if _, _, taken := c.portTaken(try); !taken {
				p.HostPort = uint16(n)
				c.nextDynamic = n + 1
			}
		}
		c.ports[PortKey(p)] = r.App + "/" + r.Service
		out[i] = p
	}
	return out
}
