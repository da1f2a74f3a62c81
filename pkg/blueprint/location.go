package blueprint

import (
	"regexp"
	"strings"

	"go.yaml.in/yaml/v4"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/source/document"
)

// The kinds of locations (spec/clocker.md §5.3).
const (
	kindFleet     = "fleet"
	kindLocalhost = "localhost"
)

// refusedKinds says why a kind of location is none that a fleet can be, and
// what to do.
var refusedKinds = map[string]struct{ why, remedy string }{
	"jclouds":        {"cloud provisioning is not supported yet", "put hosts in a fleet: docker clocker host add"},
	"openstack":      {"cloud provisioning is not supported yet", "put hosts in a fleet: docker clocker host add"},
	"mesos":          {"Mesos is not supported yet", "name a fleet, and use type: docker:IMAGE"},
	"marathon":       {"Marathon is not supported yet", "name a fleet, and use type: docker:IMAGE"},
	"byon":           {"a list of machines is not supported here yet", "add each machine to a fleet, as in docker clocker host add ssh://USER@MACHINE, and name the fleet"},
	"host":           {"a single machine is not supported here yet", "add it to a fleet with docker clocker host add, and write docker:FLEET:HOST"},
	"single":         {"a single machine is not supported here yet", "add it to a fleet with docker clocker host add, and write docker:FLEET:HOST"},
	"multi":          {"several targets are not supported yet", "name one fleet"},
	"swarm":          {"Swarm is not supported yet", "put its machines in a fleet: docker clocker host add"},
	"nomad":          {"Nomad is not supported yet", "put its machines in a fleet: docker clocker host add"},
	"kubernetes":     {"Kubernetes is not supported yet", "put its machines in a fleet: docker clocker host add"},
	"aws-ec2":        {"cloud provisioning is not supported yet", "put hosts in a fleet: docker clocker host add"},
	"softlayer":      {"cloud provisioning is not supported yet", "put hosts in a fleet: docker clocker host add"},
	"google-compute": {"cloud provisioning is not supported yet", "put hosts in a fleet: docker clocker host add"},
}

var (
	fleetName   = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)
	displayName = regexp.MustCompile(`^(.*):\(name=["']([^"']*)["']\)$`)
)

// locations reads location and locations, which must agree when both are
// given. Nil means none, or none that could be read.
func (r *reader) locations(entries []entry, path string) *model.Location {
	var found *model.Location
	var first *entry
	for i, e := range entries {
		if e.key != "location" && e.key != "locations" {
			continue
		}
		l := r.location(e)
		switch {
		case first == nil:
			found, first = l, &entries[i]
		case l == nil || found == nil || l.Name != found.Name:
			r.add(e.node, e.path, "keep one of them", "%s and %s on line %d differ", e.key, first.key, first.node.Line)
		}
	}
	return found
}

// location reads one location: a text, a map of one text to its settings, or
// a list of one of these.
func (r *reader) location(e entry) *model.Location {
	if document.Null(e.value) {
		r.add(e.node, e.path, "name a fleet or leave it out", "the location is missing")
		return nil
	}
	list := items(e.value)
	if len(list) != 1 {
		r.add(e.value, e.path, "name one fleet", "expected one location, found %d", len(list))
		for i, n := range list {
			r.oneLocation(n, itemPath(e.value, e.path, i))
		}
		return nil
	}
	return r.oneLocation(list[0], itemPath(e.value, e.path, 0))
}

func (r *reader) oneLocation(n *yaml.Node, path string) *model.Location {
	if n == nil || n.Kind != yaml.MappingNode {
		spec, ok := r.plain(n, path)
		if !ok {
			return nil
		}
		return r.locationSpec(n, path, spec)
	}
	entries := r.mapping(n, path, 0)
	if len(entries) != 1 {
		r.add(n, path, "such as my-fleet", "expected one location, found a map of %d", len(entries))
		return nil
	}
	l := r.locationSpec(entries[0].node, path, entries[0].key)
	if l != nil && !document.Null(entries[0].value) {
		r.add(entries[0].value, entries[0].path, "leave them out", "a fleet takes no settings here")
	}
	return l
}

// locationSpec reads the text of a location.
func (r *reader) locationSpec(n *yaml.Node, path, spec string) *model.Location {
	l := &model.Location{Kind: kindFleet, Name: spec, Position: r.doc.At(n)}
	s := spec
	if m := displayName.FindStringSubmatch(s); m != nil {
		s = m[1]
		l.Config = map[string]string{"name": m[2]}
	}
	kind, rest, _ := strings.Cut(s, ":")
	kind, _, _ = strings.Cut(kind, "(")
	if strings.HasPrefix(kind, "openstack") {
		kind = "openstack"
	}
	if s == "my-mesos-cluster" { // the name that Clocker gave every Mesos cluster
		kind = "mesos"
	}
	if why, refused := refusedKinds[strings.ToLower(strings.TrimSpace(kind))]; refused {
		r.add(n, path, why.remedy, "%q: %s", spec, why.why)
		return nil
	}
	switch {
	case s == kindLocalhost:
		l.Kind = kindLocalhost
		return l
	case kind == "named":
		s = rest
	case kind == "docker":
		s, l.Host, _ = strings.Cut(rest, ":")
	}
	if !fleetName.MatchString(s) || l.Host != "" && !fleetName.MatchString(l.Host) || kind == "docker" && strings.HasSuffix(rest, ":") {
		r.add(n, path, "the name of a fleet, named:FLEET, docker:FLEET or docker:FLEET:HOST", "%q is no location", spec)
		return nil
	}
	l.Name = s
	return l
}
