package compose

import (
	"fmt"
	"maps"
	"slices"

	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/source/document"
	"clocker.io/clocker/pkg/strategy"
)

// serviceExtensions are the keys of x-clocker under a service.
var serviceExtensions = []string{"affinity", "fence", "on-host-lost", "strategies"}

// serviceKey looks at one key of x-clocker under a service, and records where
// everything below it stands.
func (w *walker) serviceKey(k, v *yaml.Node, at string) {
	if !slices.Contains(serviceExtensions, k.Value) {
		w.problem(k, at, model.DidYouMean(k.Value, serviceExtensions, "the keys here are "+list(serviceExtensions)), "unknown key %q", k.Value)
		return
	}
	w.index[at] = w.doc.At(k)
	w.all(v, at, 0)
}

// all records where a value of the user's own and everything in it stands.
func (w *walker) all(n *yaml.Node, path string, depth int) {
	n = document.Resolve(n)
	if n == nil || depth > maxDepth || w.visited > maxVisits {
		return
	}
	w.visited++
	w.own(n, path)
	for i, c := range n.Content {
		switch {
		case n.Kind == yaml.SequenceNode:
			w.all(c, document.Index(path, i), depth+1)
		case n.Kind == yaml.MappingNode && i%2 == 1:
			w.all(c, document.Join(path, n.Content[i-1].Value), depth+1)
		}
	}
}

// serviceExtension reads x-clocker of a service.
func (l *load) serviceExtension(s types.ServiceConfig, path string, out *model.Service) {
	x, ok := s.Extensions["x-clocker"].(map[string]any)
	if !ok {
		return
	}
	if v := x["affinity"]; v != nil {
		rules, ok := scalars(v)
		if !ok {
			l.refuse(path+".affinity", `such as [NOT TYPE, "SAME APPLICATION"]`, "expected rules, one text or a list of them")
		}
		out.Placement.Affinity = strategy.SplitRules(rules)
	}
	l.hostLost(x, path, out)
	if v := x["strategies"]; v != nil {
		items, isList := v.([]any)
		if !isList {
			items = []any{v}
		}
		for i, item := range items {
			at := path + ".strategies"
			if isList {
				at = document.Index(at, i)
			}
			if st, ok := l.strategy(item, at); ok {
				st.Position = l.at(at)
				out.Placement.Strategies = append(out.Placement.Strategies, st)
				l.loaded[path+".strategies"] = append(l.loaded[path+".strategies"], at)
			}
		}
	}
}

const strategyForms = "a name such as breadth-first, a map such as {max-containers: 4}, or one such as {name: label, labels: [ssd], soft: true}"

// strategy reads one member of a chain: its name, a map of its name to its
// option or options, or a map with its name and its options side by side.
func (l *load) strategy(item any, at string) (model.Strategy, bool) {
	var none model.Strategy
	name, options := "", map[string]any{}
	switch v := item.(type) {
	case string:
		name = v
	case map[string]any:
		for _, key := range []string{"name", "type"} {
			if text, ok := v[key].(string); ok && name == "" {
				name = text
				options = maps.Clone(v)
				delete(options, key)
			}
		}
		if name != "" {
			break
		}
		if len(v) != 1 {
			l.refuse(at, "write "+strategyForms, "expected one strategy, found a map of %d keys without a name", len(v))
			return none, false
		}
		for key, value := range v {
			name = key
			if m, ok := value.(map[string]any); ok {
				options = m
			} else if value != nil {
				options = map[string]any{"": value}
			}
		}
	default:
		l.refuse(at, "write "+strategyForms, "expected a strategy")
		return none, false
	}
	short, remedy, ok := strategy.Name(name)
	if !ok {
		l.refuse(at, remedy, "unknown strategy %q", name)
		return none, false
	}
	given := strategy.Options{}
	for _, key := range slices.Sorted(maps.Keys(options)) {
		values, ok := scalars(options[key])
		where := at
		if key != "" {
			where = document.Join(at, key)
		}
		if key == "" {
			if key = strategy.Main(short); key == "" {
				l.refuse(at, "write its name alone, or a map of its options", "strategy %s takes no single value", short)
				return none, false
			}
		}
		if !ok {
			l.refuse(where, "write one value or a list of values", "option %s of strategy %s has the wrong shape", key, short)
			return none, false
		}
		given[key] = values
	}
	s, problems := strategy.New(short, given)
	for _, p := range problems {
		l.refuse(at, p.Remedy, "%s", p.Text)
	}
	return s, len(problems) == 0
}

// scalars are the scalars of a value or of a list.
func scalars(v any) ([]string, bool) {
	items, ok := v.([]any)
	if !ok {
		items = []any{v}
	}
	var out []string
	for _, item := range items {
		switch item.(type) {
		case nil, []any, map[string]any:
			return nil, false
		}
		out = append(out, fmt.Sprint(item))
	}
	return out, true
}
