package model

import (
	"fmt"
	"strings"
)

// Validate checks what holds for every dialect: names, references, ports,
// mounts and cycles. It reports every problem, in no particular order; a
// front end adds its own and sorts.
func Validate(a *Application) Problems {
	c := &checker{app: a, paths: map[*Entity]string{}}
	c.application()
	c.entities()
	c.networks()
	for _, e := range a.Services() {
		if e.Service != nil {
			c.service(e)
			c.references(e)
		}
	}
	c.fixedPorts()
	c.cycles()
	return c.problems
}

type checker struct {
	app      *Application
	paths    map[*Entity]string
	problems Problems
}

func (c *checker) add(at Position, path, remedy, format string, args ...any) {
	c.problems = append(c.problems, Problem{
		Position: at, Path: path, Text: fmt.Sprintf(format, args...), Remedy: remedy,
	})
}

// at adds a problem of an entity; a position that is not known becomes the
// entity's own.
func (c *checker) at(e *Entity, p Position, path, remedy, format string, args ...any) {
	if p.Line == 0 {
		p = e.Position
	}
	c.add(p, c.paths[e]+path, remedy, format, args...)
}

func (c *checker) application() {
	switch n := c.app.Name; {
	case n == "":
		c.add(Position{}, "", "name it with --app NAME", "the application has no name")
	case !ValidName(n):
		c.add(Position{}, "", fmt.Sprintf("such as %q: lower case letters, digits, \"-\" and \"_\", at most %d", Slug(n), MaxName),
			"%q cannot be the name of an application", n)
	}
}

func (c *checker) entities() {
	seen := map[string]*Entity{}
	index := map[*Entity]int{}
	c.app.Walk(func(parent, e *Entity) {
		c.paths[e] = c.path(parent, e, index)
		key := "id"
		if c.app.Dialect == "compose" {
			key = "name"
		}
		switch {
		case e.ID == "":
			c.at(e, e.Position, "", "give it an id", "the service has no id")
			return
		case !ValidID(e.ID):
			c.at(e, e.Position, "", fmt.Sprintf("such as %q: letters, digits, \"-\", \"_\" and \".\", at most %d", Slug(e.ID), MaxName),
				"%q cannot be the %s of a service", e.ID, key)
		case e.Service != nil && ValidName(c.app.Name):
			if n := replicaName(c.app.Name, e); len(n) > MaxName {
				c.at(e, e.Position, "", "shorten the name of the application or of the service",
					"its replicas would be called %q, which is longer than the %d bytes of a host name", n, MaxName)
			}
		}
		low := strings.ToLower(e.ID)
		if first := seen[low]; first != nil {
			what := fmt.Sprintf("two services have the %s %q", key, e.ID)
			if first.ID != e.ID {
				what = fmt.Sprintf("services %q and %q have the same name to DNS, which knows no case", first.ID, e.ID)
			}
			c.at(e, e.Position, "", "rename one of them", "%s%s", what, elsewhere(first.Position))
			return
		}
		seen[low] = e
	})
}

// path is where an entity stands in its document: services.web in compose,
// services[1] in a blueprint.
func (c *checker) path(parent, e *Entity, index map[*Entity]int) string {
	if c.app.Dialect == "compose" {
		return "services." + e.ID
	}
	i := index[parent]
	index[parent]++
	if parent == nil {
		return fmt.Sprintf("services[%d]", i)
	}
	return fmt.Sprintf("%s.children[%d]", c.paths[parent], i)
}

func elsewhere(p Position) string {
	if p.Line == 0 {
		return ""
	}
	return fmt.Sprintf("; the other is on line %d", p.Line)
}

// replicaName is the longest name among an entity's replicas; see
// plan.ContainerName.
func replicaName(app string, e *Entity) string {
	return fmt.Sprintf("%s-%s-%d", app, e.ID, max(1, e.Service.Replicas))
}

// references checks what a service says about other services and networks.
func (c *checker) references(e *Entity) {
	var ids []string
	c.app.Walk(func(_, o *Entity) { ids = append(ids, o.ID) })
	aliases := map[string]bool{}
	for i, l := range e.Service.Links {
		path := fmt.Sprintf(".links[%d]", i)
		switch {
		case c.app.Entity(l.Target) == nil:
			c.at(e, l.Position, path, DidYouMean(l.Target, ids, "the services are "+list(ids)), "link to %q, which does not exist", l.Target)
		case !hostName.MatchString(l.Alias):
			c.at(e, l.Position, path, "letters, digits, \"-\" and \".\"", "link alias %q cannot be a host name", l.Alias)
		case aliases[strings.ToLower(l.Alias)]:
			c.at(e, l.Position, path, "use another alias", "two links are called %q", l.Alias)
		}
		aliases[strings.ToLower(l.Alias)] = true
	}
	for _, d := range e.Service.DependsOn {
		o := c.app.Entity(d.Entity)
		switch {
		case o == nil:
			c.at(e, d.Position, ".depends_on", DidYouMean(d.Entity, ids, "the services are "+list(ids)), "depends on %q, which does not exist", d.Entity)
		case d.Condition != ConditionStarted && d.Condition != ConditionHealthy && d.Condition != ConditionCompleted:
			c.at(e, d.Position, ".depends_on", "service_started, service_healthy or service_completed_successfully",
				"%q is no condition", d.Condition)
		case o.Service != nil && o.Service.Replicas == 0:
			c.at(e, d.Position, ".depends_on", "give it a replica, or do not depend on it",
				"depends on %q, which has no replicas and never starts", d.Entity)
		}
	}
}

func list(words []string) string {
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ", ")
}
