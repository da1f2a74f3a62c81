package model

import "strings"

// cycles finds every group of services that wait for each other by links or
// dependencies, and names one way round each.
func (c *checker) cycles() {
	const (
		white = iota
		grey
		black
	)
	type edge struct {
		to string
		at Position
	}
	edges := map[string][]edge{}
	for _, e := range c.app.Services() {
		if e.Service == nil {
			continue
		}
		for _, l := range e.Service.Links {
			edges[e.ID] = append(edges[e.ID], edge{l.Target, l.Position})
		}
		for _, d := range e.Service.DependsOn {
			edges[e.ID] = append(edges[e.ID], edge{d.Entity, d.Position})
		}
	}
	colour := map[string]int{}
	var stack []string
	var visit func(id string)
	visit = func(id string) {
		colour[id] = grey
		stack = append(stack, id)
		for _, next := range edges[id] {
			switch colour[next.to] {
			case white:
				if c.app.Entity(next.to) != nil {
					visit(next.to)
				}
			case grey:
				i := len(stack) - 1
				for stack[i] != next.to {
					i--
				}
				e := c.app.Entity(id)
				way := strings.Join(append(stack[i:len(stack):len(stack)], next.to), " → ")
				if id == next.to {
					c.at(e, next.at, "", "remove the link", "service %q waits for itself", id)
				} else {
					c.at(e, next.at, "", "remove one of these links or dependencies", "services wait for each other in a cycle: %s", way)
				}
			}
		}
		stack = stack[:len(stack)-1]
		colour[id] = black
	}
	for _, e := range c.app.Services() {
		if colour[e.ID] == white {
			visit(e.ID)
		}
	}
}
