package blueprint

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/source/document"
)

// ports reads openPorts, directPorts and portBindings. A port that is fixed
// by one of the latter two needs no port picked by the fleet besides.
func (r *reader) ports(d *draft, s *model.Service) {
	fixed := map[uint16]bool{}
	hostPorts := map[uint16]int{}
	publish := func(n *yaml.Node, path string, host, container uint16) {
		if line, taken := hostPorts[host]; taken {
			r.add(n, path, "publish it once", "host port %d is given twice; the other is on line %d", host, line)
			return
		}
		hostPorts[host] = n.Line
		fixed[container] = true
		s.Ports = append(s.Ports, r.port(n, host, container))
	}
	if set, ok := d.settings[keyPortBindings]; ok && set.value != nil && !document.Null(set.value) {
		for _, e := range r.entries(set.value, set.path, "a map of host port to container port, such as {80: 9090}") {
			host, ok := r.portNumber(e.node, e.path)
			container, ok2 := r.portNumber(e.value, e.path)
			if ok && ok2 {
				publish(e.node, e.path, host, container)
			}
		}
	}
	for _, p := range r.portList(d, keyDirectPorts) {
		publish(p.node, p.path, p.port, p.port)
	}
	open := map[uint16]int{}
	for _, p := range r.portList(d, keyOpenPorts) {
		if line, twice := open[p.port]; twice {
			r.add(p.node, p.path, "open it once", "port %d is opened twice; the other is on line %d", p.port, line)
			continue
		}
		open[p.port] = p.node.Line
		if !fixed[p.port] {
			s.Ports = append(s.Ports, r.port(p.node, 0, p.port))
		}
	}
}

func (r *reader) port(n *yaml.Node, host, container uint16) model.Port {
	return model.Port{HostPort: host, ContainerPort: container, Protocol: "tcp", Mode: "host", Position: r.doc.At(n)}
}

type listedPort struct {
	node *yaml.Node
	path string
	port uint16
}

// portList reads a list of ports, or one port.
func (r *reader) portList(d *draft, key string) []listedPort {
	set, ok := d.settings[key]
	if !ok || document.Null(set.value) {
		return nil
	}
	var out []listedPort
	for i, n := range items(set.value) {
		at := itemPath(set.value, set.path, i)
		if p, ok := r.portNumber(n, at); ok {
			out = append(out, listedPort{n, at, p})
		}
	}
	return out
}

func (r *reader) portNumber(n *yaml.Node, path string) (uint16, bool) {
	if n != nil && n.Kind != yaml.ScalarNode && n.Kind != yaml.MappingNode {
		r.add(n, path, "a number from 1 to 65535", "expected a port, found %s", document.KindName(n))
		return 0, false
	}
	text, ok := r.constant(n, path)
	if !ok {
		return 0, false
	}
	p, err := strconv.ParseUint(strings.TrimSpace(text), 10, 16)
	switch {
	case err == nil && p > 0:
		return uint16(p), true
	case strings.ContainsAny(text, "+-,") && strings.Trim(text, "0123456789+-, ") == "":
		r.add(n, path, "name each port", "port ranges such as %q are not supported here", text)
	default:
		r.add(n, path, "a number from 1 to 65535", "%q is no port", text)
	}
	return 0, false
}

// env reads the map of variables, in file order.
func (r *reader) env(d *draft, s *model.Service) {
	set, ok := d.settings[keyEnv]
	if !ok || document.Null(set.value) {
		return
	}
	for _, e := range r.entries(set.value, set.path, "a map such as {KEY: value}") {
		if text, ok := r.constant(e.value, e.path); ok {
			s.Env = append(s.Env, model.EnvVar{Name: e.key, Value: model.Text(text)})
		}
	}
}

// volumes reads the paths that are bound at the same place on the host and in
// the container: those of the host, and those that are the same data on every
// host, for which the original had no key.
func (r *reader) volumes(d *draft, s *model.Service) {
	r.binds(d, s, keyVolumes)
	r.binds(d, s, keyShared)
}

// binds reads one of the lists of paths.
func (r *reader) binds(d *draft, s *model.Service, key string) {
	set, ok := d.settings[key]
	if !ok || document.Null(set.value) {
		return
	}
	if set.value.Kind == yaml.MappingNode {
		r.add(set.value, set.path, "a list of paths, each bound to the same path of the host", "expected a list, found a map")
		return
	}
	for i, n := range items(set.value) {
		at := itemPath(set.value, set.path, i)
		p, ok := r.constant(n, at)
		switch {
		case !ok:
		case strings.Contains(p, ":"):
			source, _, _ := strings.Cut(p, ":")
			r.add(n, at, fmt.Sprintf("a path that is the same on both sides, such as %s", source), "%q: another path in the container is not supported yet", p)
		case !path.IsAbs(p) || path.Clean(p) == "/":
			r.add(n, at, "a path such as /var/lib/data", "%q is not an absolute path below /", p)
		default:
			p = path.Clean(p)
			s.Mounts = append(s.Mounts, model.Mount{Type: model.MountBind, Source: p, Target: p, CreateHostPath: key == keyVolumes, Shared: key == keyShared})
		}
	}
}

// links reads the list form, where the alias is the id, and the map form of
// alias to service.
func (r *reader) links(d *draft, s *model.Service) {
	set, ok := d.settings[keyLinks]
	if !ok || document.Null(set.value) {
		return
	}
	const remedy = `a list such as [$brooklyn:component("redis")], or a map of alias to $brooklyn:component("redis")`
	isExpression := set.value.Kind == yaml.MappingNode && len(set.value.Content) == 2 && strings.HasPrefix(set.value.Content[0].Value, "$brooklyn:")
	if set.value.Kind == yaml.MappingNode && !isExpression {
		for _, e := range r.entries(set.value, set.path, remedy) {
			r.link(s, e.value, e.path, e.key)
		}
		return
	}
	for i, n := range items(set.value) {
		r.link(s, n, itemPath(set.value, set.path, i), "")
	}
}

func (r *reader) link(s *model.Service, n *yaml.Node, path, alias string) {
	if document.Null(n) {
		r.add(n, path, `such as $brooklyn:component("redis")`, "the link is missing")
		return
	}
	v, ok := r.value(n, path, 0)
	if !ok {
		return
	}
	if text, literal := v.Literal(); literal {
		r.add(n, path, fmt.Sprintf("write $brooklyn:component(%q)", text), "%q is no expression that names a service", text)
		return
	}
	x := v.Expr
	id := ""
	switch {
	case x.Target != nil || x.Func != "component" && x.Func != "entity":
	case len(x.Args) == 1:
		id, ok = x.Args[0].Literal()
	case len(x.Args) == 2:
		if scope, _ := x.Args[0].Literal(); scope == "global" || scope == "sibling" {
			id, ok = x.Args[1].Literal()
		}
	}
	if !ok || id == "" {
		r.add(n, path, `write $brooklyn:component("ID") or $brooklyn:entity("ID")`, "a link must name a service: %s", v)
		return
	}
	if alias == "" {
		alias = id
	}
	s.Links = append(s.Links, model.Link{Target: id, Alias: alias, Position: r.doc.At(n)})
}
