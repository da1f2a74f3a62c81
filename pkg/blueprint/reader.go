package blueprint

import (
	"fmt"

	"go.yaml.in/yaml/v4"

	"clocker.io/clocker/pkg/blueprint/dsl"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/source/document"
)

// reader walks one document and collects its problems.
type reader struct {
	doc      *document.Document
	problems model.Problems
	// ids are the plan ids that the document gives, for expressions that
	// name an entity.
	ids []string
	// config is what services inherit from the application.
	config map[string]setting
	// visited counts the nodes read as values: aliases of aliases can stand
	// for more than any machine can read.
	visited int
}

const (
	maxVisits = 100_000
	maxDepth  = 100
)

func (r *reader) add(n *yaml.Node, path, remedy, format string, args ...any) {
	r.problems = append(r.problems, model.Problem{
		Position: r.doc.At(n), Path: path, Text: fmt.Sprintf(format, args...), Remedy: remedy,
	})
}

// entry is one key of a map with its value. Path leads to the value.
type entry struct {
	key   string
	node  *yaml.Node // the key
	value *yaml.Node // aliases resolved
	path  string
}

// entries lists a map in file order, merge keys included. Anything but a map
// is a problem and gives nothing.
func (r *reader) entries(n *yaml.Node, path, remedy string) []entry {
	n = document.Resolve(n)
	if n == nil || n.Kind != yaml.MappingNode {
		r.add(n, path, remedy, "expected a map, found %s", document.KindName(n))
		return nil
	}
	return r.mapping(n, path, 0)
}

func (r *reader) mapping(n *yaml.Node, path string, depth int) []entry {
	var own []entry
	has := map[string]bool{}
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], document.Resolve(n.Content[i+1])
		if k.Value == "<<" && depth < maxDepth {
			merges = append(merges, v)
			continue
		}
		has[k.Value] = true
		own = append(own, entry{k.Value, k, v, document.Join(path, k.Value)})
	}
	for len(merges) > 0 && r.visit(n, path) {
		m := merges[0]
		merges = merges[1:]
		switch {
		case m != nil && m.Kind == yaml.SequenceNode:
			for _, c := range m.Content {
				merges = append(merges, document.Resolve(c))
			}
		case m == nil || m.Kind != yaml.MappingNode:
			r.add(m, path, "merge a map", "<< merges %s", document.KindName(m))
		default:
			for _, e := range r.mapping(m, path, depth+1) {
				if !has[e.key] {
					has[e.key] = true
					own = append(own, e)
				}
			}
		}
	}
	return own
}

// items lists a list; a value that is no list is a list of one.
func items(n *yaml.Node) []*yaml.Node {
	n = document.Resolve(n)
	if n.Kind != yaml.SequenceNode {
		return []*yaml.Node{n}
	}
	out := make([]*yaml.Node, len(n.Content))
	for i, c := range n.Content {
		out[i] = document.Resolve(c)
	}
	return out
}

// itemPath is the path of an item; that of a scalar in the place of a list
// is the scalar's own.
func itemPath(list *yaml.Node, path string, i int) string {
	if list.Kind != yaml.SequenceNode {
		return path
	}
	return document.Index(path, i)
}

// plain reads a text that may not be an expression.
func (r *reader) plain(n *yaml.Node, path string) (string, bool) {
	n = document.Resolve(n)
	switch {
	case document.Null(n):
		r.add(n, path, "give it a value or leave the key out", "the value is missing")
	case n.Kind != yaml.ScalarNode:
		r.add(n, path, "", "expected a text, found %s", document.KindName(n))
	case dsl.Is(n.Value):
		r.add(n, path, "write the text itself", "an expression cannot stand here: %s", n.Value)
	default:
		return n.Value, true
	}
	return "", false
}
