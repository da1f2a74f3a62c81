// Package lint finds what is wrong with the words that a service says of its
// placement: constraints, preferences, strategies and affinity rules. What
// they mean is pkg/placement's; the application model, which that package is
// built on, cannot ask it. So the front ends check a file with its lines, and
// the controller what it is sent. It knows no hosts.
//
// Design page: docs/design/placement.md.
package lint

import (
	"fmt"
	"strings"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/placement"
)

// Paths say where a dialect writes what.
type Paths struct{ Constraints, Spread, Affinity, Strategies string }

// PathsOf are the paths of a dialect, below a service.
func PathsOf(dialect string) Paths {
	if dialect == "compose" {
		return Paths{
			Constraints: "deploy.placement.constraints", Spread: "deploy.placement.preferences",
			Affinity: "x-clocker.affinity", Strategies: "x-clocker.strategies",
		}
	}
	return Paths{Affinity: "affinity.rules", Strategies: "docker.container.strategies"}
}

// Service finds every problem of a service. path is where the service stands
// in its document.
func Service(p model.Placement, dialect, path string) model.Problems {
	at := PathsOf(dialect)
	var out model.Problems
	add := func(where model.Position, key string, i int, err error) {
		if err == nil {
			return
		}
		text, remedy := err.Error(), ""
		if head, tail, ok := strings.Cut(text, " ("); ok && strings.HasSuffix(tail, ")") && !strings.Contains(text, "\n") {
			text, remedy = head, strings.TrimSuffix(tail, ")")
		}
		out = append(out, model.Problem{
			Position: where, Path: fmt.Sprintf("%s.%s[%d]", path, key, i), Text: strings.ReplaceAll(text, "\n", "; "), Remedy: remedy,
		})
	}
	for i, c := range p.Constraints {
		_, err := placement.ParseConstraint(c)
		add(p.Position, at.Constraints, i, err)
	}
	for i, s := range p.Spread {
		_, err := placement.ParsePreference(s)
		add(p.Position, at.Spread, i, err)
	}
	for i, r := range p.Affinity {
		_, err := placement.ParseAffinity(r)
		add(p.Position, at.Affinity, i, err)
	}
	for i, s := range p.Strategies {
		add(s.Position, at.Strategies, i, placement.CheckStrategy(s))
		for _, r := range s.Rules {
			_, err := placement.ParseAffinity(r)
			add(s.Position, at.Strategies, i, err)
		}
	}
	return out
}

// Policy finds what is wrong with what holds for the whole fleet.
func Policy(strategies []model.Strategy, affinity []string) []string {
	var out []string
	for _, s := range strategies {
		if err := placement.CheckStrategy(s); err != nil {
			out = append(out, err.Error())
		}
		affinity = append(affinity, s.Rules...)
	}
	for _, r := range affinity {
		if _, err := placement.ParseAffinity(r); err != nil {
			out = append(out, err.Error())
		}
	}
	return out
}
