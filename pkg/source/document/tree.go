package document

import (
	"fmt"
	"strconv"

	"go.yaml.in/yaml/v4"

	"clocker.io/clocker/pkg/model"
)

// Join adds a key to the path of a place in a document.
func Join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// Index adds the number of an item to the path of a place in a document.
func Index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// Resolve returns what an alias stands for, and any other node as it is.
func Resolve(n *yaml.Node) *yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// Null reports whether a node has no value: "key:" with nothing after it.
func Null(n *yaml.Node) bool {
	return n == nil || n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// KindName names what a node is, for a message.
func KindName(n *yaml.Node) string {
	switch n = Resolve(n); {
	case Null(n):
		return "nothing"
	case n.Kind == yaml.MappingNode:
		return "a map"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.ShortTag() == "!!int" || n.ShortTag() == "!!float":
		return "a number"
	case n.ShortTag() == "!!bool":
		return "true or false"
	}
	return "a text"
}

// Get returns the value of a key in a mapping, or nil. Merge keys are looked
// through.
func Get(n *yaml.Node, key string) *yaml.Node { return get(Resolve(n), key, 0) }

// deepest bounds how far merges of merges are followed.
const deepest = 50

func get(n *yaml.Node, key string, depth int) *yaml.Node {
	if n == nil || depth > deepest {
		return nil
	}
	if n.Kind == yaml.SequenceNode && depth > 0 { // the list form of a merge
		for _, m := range n.Content {
			if v := get(Resolve(m), key, depth+1); v != nil {
				return v
			}
		}
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return Resolve(n.Content[i+1])
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == "<<" {
			if v := get(Resolve(n.Content[i+1]), key, depth+1); v != nil {
				return v
			}
		}
	}
	return nil
}

// duplicates finds keys that a mapping has twice, and keys that are no
// scalars.
func duplicates(docs []*Document) model.Problems {
	var ps model.Problems
	for _, d := range docs {
		seen := map[*yaml.Node]bool{}
		var walk func(n *yaml.Node, path string)
		walk = func(n *yaml.Node, path string) {
			if n == nil || seen[n] {
				return
			}
			seen[n] = true
			switch n.Kind {
			case yaml.SequenceNode:
				for i, c := range n.Content {
					walk(c, Index(path, i))
				}
			case yaml.MappingNode:
				first := map[string]*yaml.Node{}
				for i := 0; i+1 < len(n.Content); i += 2 {
					k := n.Content[i]
					if k.Kind != yaml.ScalarNode {
						ps = append(ps, model.Problem{Position: d.At(k), Path: path, Text: "a key of a map must be a text"})
						continue
					}
					if f := first[k.Value]; f != nil {
						ps = append(ps, model.Problem{
							Position: d.At(k), Path: Join(path, k.Value),
							Text:   fmt.Sprintf("key %q is given twice; the other is on line %d", k.Value, f.Line),
							Remedy: "keep one of them",
						})
					}
					first[k.Value] = k
					walk(n.Content[i+1], Join(path, k.Value))
				}
			}
		}
		walk(d.Root, "")
	}
	return ps
}
