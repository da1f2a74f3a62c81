package model

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// ReservedLabels is the prefix of the labels that the fleet puts on its own
// objects; a file may not set them.
const ReservedLabels = "io.clocker."

var restartPolicies = []string{"no", "always", "on-failure", "unless-stopped"}

var envName = regexp.MustCompile(`^[^=\x00]+$`)

// service checks what a service says about its own container.
func (c *checker) service(e *Entity) {
	s := e.Service
	if s.Image == "" {
		c.at(e, e.Position, ".image", "name one with image:", "the service has no image")
	} else if _, err := ParseImage(s.Image); err != nil {
		c.at(e, e.Position, ".image", "such as redis:7 or registry:5000/team/app:1", "%q is no image reference", s.Image)
	}
	if s.Replicas < 0 {
		c.at(e, e.Position, ".replicas", "0 or more", "%d replicas cannot run", s.Replicas)
	}
	if s.Restart.Policy != "" && !slices.Contains(restartPolicies, s.Restart.Policy) {
		c.at(e, e.Position, ".restart", strings.Join(restartPolicies, ", "), "%q is no restart policy", s.Restart.Policy)
	}
	if s.Restart.MaxRetries < 0 || s.Restart.MaxRetries > 0 && s.Restart.Policy != "on-failure" {
		c.at(e, e.Position, ".restart", "on-failure:N", "a number of retries goes with on-failure only")
	}
	if s.StopGracePeriod < 0 {
		c.at(e, e.Position, ".stop_grace_period", "such as 30s", "a stop grace period cannot be negative")
	}
	if m := s.EndpointMode; m != "" && m != EndpointVIP && m != EndpointDNSRR {
		c.at(e, e.Position, ".deploy.endpoint_mode", "vip or dnsrr", "%q is no endpoint mode", m)
	}
	c.env(e)
	c.ports(e)
	c.mounts(e)
	c.attachments(e)
	c.healthcheck(e)
	c.labels(e)
	c.resources(e)
	c.placement(e)
	c.hostLost(e)
}

func (c *checker) env(e *Entity) {
	seen := map[string]bool{}
	for _, v := range e.Service.Env {
		switch {
		case !envName.MatchString(v.Name):
			c.at(e, e.Position, ".environment", "", "%q cannot be the name of a variable", v.Name)
		case seen[v.Name]:
			c.at(e, e.Position, ".environment", "keep one of them", "variable %q is given twice", v.Name)
		}
		seen[v.Name] = true
	}
}

func (c *checker) ports(e *Entity) {
	ports := e.Service.Ports
	for i, p := range ports {
		at := func(remedy, format string, args ...any) {
			c.at(e, p.Position, fmt.Sprintf(".ports[%d]", i), remedy, format, args...)
		}
		if p.ContainerPort == 0 {
			at("1 to 65535", "0 is no port of a container")
		}
		if p.Protocol != "tcp" && p.Protocol != "udp" {
			at("tcp or udp", "protocol %q is not supported", p.Protocol)
		}
		if p.Mode != "host" && p.Mode != "ingress" {
			at("host or ingress", "%q is no mode of a port", p.Mode)
		}
		for _, q := range ports[:i] {
			if samePort(p, q) {
				at("remove one of them", "%s is published twice", portName(p))
				break
			}
		}
	}
}

// fixedPorts finds services that want one port of every host at once.
func (c *checker) fixedPorts() {
	type use struct {
		e *Entity
		p Port
	}
	var uses []use
	for _, e := range c.app.Services() {
		if e.Service == nil {
			continue
		}
		for i, p := range e.Service.Ports {
			if p.HostPort == 0 {
				continue
			}
			for _, u := range uses {
				if u.e != e && (p.Mode == "ingress" || u.p.Mode == "ingress") && samePort(p, u.p) {
					c.at(e, p.Position, fmt.Sprintf(".ports[%d]", i), "publish one of them on another port",
						"%s is published on every host by service %q too", portName(p), u.e.ID)
					break
				}
			}
			uses = append(uses, use{e, p})
		}
	}
}

// samePort reports whether two ports cannot be published on one host at once.
// A port that the fleet picks clashes only with its own repetition.
func samePort(p, q Port) bool {
	if p.Protocol != q.Protocol || p.HostPort != q.HostPort {
		return false
	}
	if p.HostPort == 0 {
		return p.ContainerPort == q.ContainerPort && p.HostIP == q.HostIP
	}
	return p.HostIP == q.HostIP || everyAddress(p.HostIP) || everyAddress(q.HostIP)
}

func everyAddress(ip string) bool { return ip == "" || ip == "0.0.0.0" || ip == "::" }

func portName(p Port) string {
	if p.HostPort == 0 {
		return fmt.Sprintf("container port %d/%s", p.ContainerPort, p.Protocol)
	}
	return fmt.Sprintf("host port %d/%s", p.HostPort, p.Protocol)
}

func (c *checker) mounts(e *Entity) {
	seen := map[string]bool{}
	for i, m := range e.Service.Mounts {
		at := func(remedy, format string, args ...any) {
			c.at(e, Position{}, fmt.Sprintf(".volumes[%d]", i), remedy, format, args...)
		}
		if m.Type == MountBind && !path.IsAbs(m.Source) {
			at("an absolute path, which must exist on the host that runs the container", "bind source %q is not absolute", m.Source)
		}
		if !path.IsAbs(m.Target) || path.Clean(m.Target) == "/" {
			at("an absolute path below /", "%q cannot be mounted on", m.Target)
		}
		if t := path.Clean(m.Target); seen[t] {
			at("remove one of them", "two mounts have the target %q", t)
		} else {
			seen[t] = true
		}
	}
}

func (c *checker) healthcheck(e *Entity) {
	h := e.Service.Healthcheck
	if h == nil {
		return
	}
	if len(h.Test) > 0 && !h.Disable {
		switch {
		case h.Test[0] != "CMD" && h.Test[0] != "CMD-SHELL":
			c.at(e, Position{}, ".healthcheck.test", `a string, ["CMD", ...], ["CMD-SHELL", "..."] or ["NONE"]`,
				"a health check cannot start with %q", h.Test[0])
		case len(h.Test) < 2:
			c.at(e, Position{}, ".healthcheck.test", "name the command after "+h.Test[0], "the health check runs nothing")
		}
	}
	for _, d := range []struct {
		key string
		neg bool
	}{{"interval", h.Interval < 0}, {"timeout", h.Timeout < 0}, {"start_period", h.StartPeriod < 0}, {"start_interval", h.StartInterval < 0}, {"retries", h.Retries < 0}} {
		if d.neg {
			c.at(e, Position{}, ".healthcheck."+d.key, "", "%s cannot be negative", d.key)
		}
	}
}

func (c *checker) labels(e *Entity) {
	var bad []string
	for k := range e.Service.Labels {
		if strings.HasPrefix(k, ReservedLabels) {
			bad = append(bad, k)
		}
	}
	slices.Sort(bad)
	for _, k := range bad {
		c.at(e, Position{}, ".labels."+k, "use another prefix", "labels that start with %s belong to the fleet", ReservedLabels)
	}
}
