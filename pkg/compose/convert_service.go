package compose

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"clocker.io/clocker/pkg/model"
)

func (l *load) service(p *types.Project, name string) *model.Entity {
	s := p.Services[name]
	path := "services." + name
	out := &model.Service{
		Image:       s.Image,
		Command:     slices.Clone([]string(s.Command)),
		Entrypoint:  slices.Clone([]string(s.Entrypoint)),
		Replicas:    l.replicas(s, path),
		Restart:     l.restart(s, path),
		Healthcheck: healthcheck(s.HealthCheck),
	}
	if image, err := model.ParseImage(s.Image); err == nil {
		out.Image = image
	}
	for _, k := range slices.Sorted(maps.Keys(s.Environment)) {
		// A name without a value means the caller's own, which is not set.
		if v := s.Environment[k]; v != nil {
			out.Env = append(out.Env, model.EnvVar{Name: k, Value: model.Text(*v)})
		}
	}
	if len(s.Labels) > 0 {
		out.Labels = maps.Clone(s.Labels)
	}
	if s.StopGracePeriod != nil {
		out.StopGracePeriod = time.Duration(*s.StopGracePeriod)
	}
	if s.Deploy != nil {
		out.EndpointMode = s.Deploy.EndpointMode
	}
	out.Resources = l.resources(s, path)
	l.placement(s, path, out)
	l.ports(s, path, out)
	l.mounts(s, path, out)
	l.staysBehind(path+".x-clocker", out)
	l.dependencies(p, s, path, out)
	for _, n := range l.ordered(slices.Collect(maps.Keys(s.Networks)), path+".networks.") {
		a := model.Attachment{Network: n, Position: l.at(path + ".networks." + n)}
		if c := s.Networks[n]; c != nil {
			a.Aliases = slices.Clone(c.Aliases)
			a.Address, a.Address6, a.MAC, a.GatewayPriority = c.Ipv4Address, c.Ipv6Address, c.MacAddress, c.GatewayPriority
		}
		out.Networks = append(out.Networks, a)
	}
	// As compose does: the higher the priority, the earlier it is joined.
	slices.SortStableFunc(out.Networks, func(a, b model.Attachment) int {
		return cmp.Compare(priority(s, b.Network), priority(s, a.Network))
	})
	return &model.Entity{ID: name, Kind: model.KindService, Service: out, Position: l.at(path)}
}

func priority(s types.ServiceConfig, network string) int {
	if c := s.Networks[network]; c != nil {
		return c.Priority
	}
	return 0
}

func (l *load) refuse(path, remedy, format string, args ...any) {
	l.add(model.Problem{Position: l.at(path), Path: path, Text: fmt.Sprintf(format, args...), Remedy: remedy})
}

func (l *load) replicas(s types.ServiceConfig, path string) int {
	n := 1
	if s.Deploy != nil && s.Deploy.Replicas != nil {
		n = *s.Deploy.Replicas
		if s.Scale != nil && *s.Scale != n {
			l.refuse(path+".scale", "keep one of them", "scale says %d and deploy.replicas %d", *s.Scale, n)
		}
	} else if s.Scale != nil {
		n = *s.Scale
	}
	return n
}

// restart reads no, always, unless-stopped, on-failure and on-failure:N.
// Whether it is one of them is the model's to check.
func (l *load) restart(s types.ServiceConfig, path string) model.Restart {
	policy, retries, counted := strings.Cut(s.Restart, ":")
	r := model.Restart{Policy: policy}
	if r.Policy == "" {
		r.Policy = "no"
	}
	if counted {
		n, err := strconv.Atoi(retries)
		if err != nil || n < 0 {
			l.refuse(path+".restart", "such as on-failure:3", "%q is no number of retries", retries)
			return model.Restart{Policy: "on-failure"}
		}
		r.MaxRetries = n
	}
	return r
}

func healthcheck(h *types.HealthCheckConfig) *model.Healthcheck {
	if h == nil {
		return nil
	}
	if h.Disable || len(h.Test) > 0 && h.Test[0] == "NONE" {
		return &model.Healthcheck{Disable: true}
	}
	out := &model.Healthcheck{Test: slices.Clone([]string(h.Test))}
	for _, d := range []struct {
		from *types.Duration
		to   *time.Duration
	}{{h.Interval, &out.Interval}, {h.Timeout, &out.Timeout}, {h.StartPeriod, &out.StartPeriod}, {h.StartInterval, &out.StartInterval}} {
		if d.from != nil {
			*d.to = time.Duration(*d.from)
		}
	}
	if h.Retries != nil {
		out.Retries = int(min(*h.Retries, 1<<31-1))
	}
	return out
}

func (l *load) ports(s types.ServiceConfig, path string, out *model.Service) {
	list := path + ".ports"
	places := l.places(list, len(s.Ports))
	for i, p := range s.Ports {
		at := place(places, list, i)
		port := model.Port{HostIP: p.HostIP, Protocol: p.Protocol, Mode: p.Mode, Position: l.at(at)}
		if port.Protocol == "" {
			port.Protocol = "tcp"
		}
		switch port.Mode {
		case namedIngress:
			port.Mode = model.PortIngress
		case "", "ingress":
			// compose-go gives this mode to every port that names none. Those
			// mean what docker compose does.
			port.Mode = model.PortHost
		}
		if p.Target == 0 || p.Target > 65535 {
			l.refuse(at, "1 to 65535", "%d is no port of a container", p.Target)
			continue
		}
		port.ContainerPort = uint16(p.Target)
		if p.Published != "" {
			n, err := strconv.ParseUint(p.Published, 10, 16)
			switch {
			case err == nil:
				port.HostPort = uint16(n)
			case strings.Contains(p.Published, "-"):
				l.refuse(at, "name one host port, or none to have one picked", "a range of host ports (%s) for one container port is not supported yet", p.Published)
				continue
			default:
				l.refuse(at, "1 to 65535", "%q is no port of a host", p.Published)
				continue
			}
		}
		out.Ports = append(out.Ports, port)
		l.loaded[list] = append(l.loaded[list], at)
	}
}

func (l *load) mounts(s types.ServiceConfig, path string, out *model.Service) {
	list := path + ".volumes"
	places := l.places(list, len(s.Volumes))
	for i, v := range s.Volumes {
		at := place(places, list, i)
		if v.Type != types.VolumeTypeBind {
			if !l.said[at] {
				l.refuse(at, "bind a path of the host: type: bind", "mounts of type %q are not supported yet", v.Type)
			}
			continue
		}
		m := model.Mount{Type: model.MountBind, Source: v.Source, Target: v.Target, ReadOnly: v.ReadOnly, CreateHostPath: true}
		if v.Bind != nil {
			m.CreateHostPath = bool(v.Bind.CreateHostPath)
			if v.Bind.SELinux != "" || v.Bind.Propagation != "" || v.Bind.Recursive != "" {
				l.refuse(at, "leave them out", "bind options are not supported yet")
			}
		}
		if m.Shared = shared(v); m.Shared && m.ReadOnly {
			l.refuse(at+".x-clocker.shared", "leave it out", "what is only read need not be shared: it hinders no replacement")
		}
		out.Mounts = append(out.Mounts, m)
		l.loaded[list] = append(l.loaded[list], at)
	}
}

func (l *load) dependencies(p *types.Project, s types.ServiceConfig, path string, out *model.Service) {
	for _, name := range l.ordered(slices.Collect(maps.Keys(s.DependsOn)), path+".depends_on.") {
		d := s.DependsOn[name]
		at := path + ".depends_on." + name
		if _, active := p.Services[name]; !active {
			if !d.Required {
				continue // as compose has it: an optional dependency that does not run
			}
			if o, disabled := p.DisabledServices[name]; disabled {
				l.refuse(at, "choose it with --profile "+strings.Join(o.Profiles, " or "), "depends on %q, which belongs to no active profile", name)
				continue
			}
		}
		condition := d.Condition
		if condition == "" {
			condition = types.ServiceConditionStarted
		}
		out.DependsOn = append(out.DependsOn, model.Dependency{Entity: name, Condition: model.Condition(condition), Position: l.at(at)})
	}
}
