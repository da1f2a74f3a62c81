package compose

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/source/document"
)

const (
	maxVisits = 100_000
	maxDepth  = 100
)

var name = regexp.MustCompile(`^[a-zA-Z0-9._-]+$`)

// walker looks at every key of one YAML document. It goes over the text as
// the user wrote it, since what the loader makes of it has no lines.
type walker struct {
	*load
	source *source
	doc    *document.Document
	// dir is what relative paths in this file start from.
	dir string
	// prune takes what is refused out of the document; only for documents
	// that the loader gets from us.
	prune bool
	depth int
	// targets are the paths that the mounts of the list at hand have taken.
	targets map[string]bool
	// chain are the files that led to this one by include or extends.
	chain []string
	// seen are the nodes refused before under another path, when they cannot
	// be taken out.
	seen map[*yaml.Node]bool
}

func (w *walker) problem(n *yaml.Node, path, remedy, format string, args ...any) {
	if w.seen[n] && n != nil {
		return
	}
	if w.seen == nil {
		w.seen = map[*yaml.Node]bool{}
	}
	w.seen[n] = true
	w.foreign = w.foreign || !w.prune
	w.add(model.Problem{Position: w.doc.At(n), Path: path, Text: fmt.Sprintf(format, args...), Remedy: remedy})
}

// root walks the whole document.
func (w *walker) root() {
	n := document.Resolve(w.doc.Root)
	switch {
	case document.Null(n):
	case n.Kind != yaml.MappingNode:
		w.problem(n, "", "a compose file is a map with services", "expected a map, found %s", document.KindName(n))
		w.fatal = true
	default:
		w.mapping(n, "", "")
	}
}

// walk goes into a value. The pattern is its path with "*" and "[]" in the
// place of names and numbers.
func (w *walker) walk(n *yaml.Node, pattern, path string) {
	n = document.Resolve(n)
	w.visited++
	if n == nil || n.Tag == "!reset" {
		return
	}
	if opaque[pattern] {
		w.own(n, path)
		return
	}
	if w.visited > maxVisits || w.depth > maxDepth {
		if !w.fatal {
			w.problem(n, path, "use fewer anchors and aliases", "the aliases of this file stand for more than %d values", maxVisits)
		}
		w.fatal = true
		return
	}
	w.depth++
	defer func() { w.depth-- }()
	switch n.Kind {
	case yaml.MappingNode:
		w.mapping(n, pattern, path)
	case yaml.SequenceNode:
		w.lists[path] = n
		w.targets = map[string]bool{}
		var bad []int
		for i, c := range n.Content {
			at := document.Index(path, w.number(n, i))
			item := document.Resolve(c)
			w.index[at] = w.doc.At(c)
			if item.Kind == yaml.ScalarNode {
				// The short forms of networks and depends_on are names.
				w.index[document.Join(path, item.Value)] = w.doc.At(c)
			}
			if !w.itemOK(item, pattern, at) {
				bad = append(bad, i)
				continue
			}
			w.walk(item, pattern+".[]", at)
		}
		for j := len(bad) - 1; j >= 0 && w.prune; j-- {
			w.removeItem(n, bad[j])
			w.source.changed = true
		}
	}
}

// own records where the entries of a value stand that is the user's own.
func (w *walker) own(n *yaml.Node, path string) {
	for i, c := range n.Content {
		switch {
		case n.Kind == yaml.SequenceNode:
			w.index[document.Index(path, i)] = w.doc.At(c)
		case n.Kind == yaml.MappingNode && i%2 == 0:
			w.index[document.Join(path, c.Value)] = w.doc.At(c)
		}
	}
}

// mapping looks at each key of a map.
func (w *walker) mapping(n *yaml.Node, pattern, path string) {
	var kept []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if w.key(k, v, n, pattern, path) {
			kept = append(kept, k, v)
		}
	}
	if len(kept) < len(n.Content) && w.prune {
		n.Content = kept
		w.source.changed = true
	}
}

// key looks at one key, and reports whether the loader may see it.
func (w *walker) key(k, v, parent *yaml.Node, pattern, path string) bool {
	if k.Value == "<<" {
		w.merge(v, pattern, path)
		return true
	}
	if tag := k.ShortTag(); tag != "!!str" {
		w.problem(k, document.Join(path, k.Value), fmt.Sprintf("quote it: %q", k.Value), "the key %s is not a text", k.Value)
		return false
	}
	named := join(pattern, "*")
	child, at := join(pattern, k.Value), document.Join(path, k.Value)
	if done[named] {
		child = named
	}
	w.index[at] = w.doc.At(k)
	remedy, isRefused := refused[child]
	switch {
	case strings.HasPrefix(k.Value, "x-") && !done[named]:
		if k.Value == "x-clocker" {
			w.extension(v, pattern, at)
		}
		return true
	case document.Resolve(v) != nil && document.Resolve(v).Tag == "!reset":
		return true
	case isRefused:
		text := fmt.Sprintf("%q is not supported yet", k.Value)
		if k.Value == "container_name" {
			if r := replicas(parent); r > 1 {
				text = fmt.Sprintf("container_name cannot be the name of %d replicas", r)
			}
		}
		w.problem(k, at, remedy, "%s", text)
		if child == "services.*.build" {
			w.said[document.Join(path, "image")] = true // its remedy says it
		}
		return false
	case done[named] && (pattern == "services" || pattern == "networks") && !name.MatchString(k.Value):
		w.problem(k, at, "letters, digits, \"-\", \"_\" and \".\"", "%q cannot be a name", k.Value)
		return false
	case !done[child]:
		known := siblings(pattern)
		if len(known) == 0 {
			return true // a map in the place of something else, as the loader will say
		}
		w.problem(k, at, model.DidYouMean(k.Value, known, "the keys here are "+list(known)), "unknown key %q", k.Value)
		return false
	}
	if !w.valueOK(v, child, at) {
		return false
	}
	w.walk(v, child, at)
	return true
}

// list names a few words.
func list(words []string) string {
	const most = 12
	if len(words) > most {
		return strings.Join(words[:most], ", ") + ", ..."
	}
	return strings.Join(words, ", ")
}

func join(pattern, key string) string {
	if pattern == "" {
		return key
	}
	return pattern + "." + key
}

// merge walks what << brings into the map at the same path.
func (w *walker) merge(v *yaml.Node, pattern, path string) {
	v = document.Resolve(v)
	if v != nil && v.Kind == yaml.SequenceNode {
		for _, m := range v.Content {
			w.merge(m, pattern, path)
		}
		return
	}
	w.walk(v, pattern, path)
}

// extension looks at the keys of x-clocker.
func (w *walker) extension(v *yaml.Node, pattern, path string) {
	v = document.Resolve(v)
	switch {
	case document.Null(v):
	case v.Kind != yaml.MappingNode:
		w.problem(v, path, "leave it out", "expected a map, found %s", document.KindName(v))
	default:
		for i := 0; i+1 < len(v.Content); i += 2 {
			k := v.Content[i]
			at := document.Join(path, k.Value)
			switch pattern {
			case "networks.*":
				w.networkKey(k, v.Content[i+1], at)
			case "services.*":
				w.serviceKey(k, v.Content[i+1], at)
			case "services.*.volumes.[]":
				w.mountKey(k, v.Content[i+1], at)
			default:
				w.problem(k, at, "leave it out: x-clocker has keys under services, their volumes, and networks only", "unknown key %q", k.Value)
			}
		}
	}
}

// replicas is how many replicas a service asks for in plain numbers.
func replicas(service *yaml.Node) int {
	for _, n := range []*yaml.Node{document.Get(service, "scale"), document.Get(document.Get(service, "deploy"), "replicas")} {
		if n != nil && n.Kind == yaml.ScalarNode {
			if i, err := strconv.Atoi(n.Value); err == nil {
				return i
			}
		}
	}
	return 1
}
