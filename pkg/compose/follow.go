package compose

import (
	"os"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v4"

	"clocker.io/clocker/pkg/source/document"
)

// include walks the files that the document includes. The loader merges them;
// what they say that the fleet cannot carry out is found here. False keeps
// the loader from following.
func (w *walker) include(v *yaml.Node, at string) bool {
	if document.Null(document.Resolve(v)) {
		return true
	}
	if w.source.file.Remote {
		w.problem(v, at, "put everything into one file", "a file from another machine cannot name files of this one")
		return false
	}
	n := document.Resolve(v)
	if n.Kind != yaml.SequenceNode {
		return true // the loader says so
	}
	for i, c := range n.Content {
		item := document.Resolve(c)
		at := document.Index(at, i)
		paths, dir := item, ""
		if item.Kind == yaml.MappingNode {
			paths = document.Get(item, "path")
			if d, ok := w.text(document.Get(item, "project_directory")); ok && d != "" {
				dir = w.abs(d)
			}
		}
		if paths == nil {
			continue
		}
		list := []*yaml.Node{paths}
		if paths.Kind == yaml.SequenceNode {
			list = paths.Content
		}
		for _, p := range list {
			file, ok := w.text(p)
			if !ok {
				continue
			}
			file = w.abs(file)
			if dir == "" {
				dir = filepath.Dir(file)
			}
			if o := w.open(p, at, file, dir); o != nil {
				o.root()
			}
		}
	}
	return true
}

// extends walks the service of another file that a service extends. False
// keeps the loader from following.
func (w *walker) extends(v *yaml.Node, at string) bool {
	n := document.Resolve(v)
	if n == nil || n.Kind != yaml.MappingNode {
		return true // a service of the same file, which is walked anyway
	}
	file, ok := w.text(document.Get(n, "file"))
	service, ok2 := w.text(document.Get(n, "service"))
	if !ok || !ok2 || file == "" {
		return true
	}
	if w.source.file.Remote {
		w.problem(v, at, "put everything into one file", "a file from another machine cannot name files of this one")
		return false
	}
	file = w.abs(file)
	o := w.open(document.Get(n, "file"), at, file, filepath.Dir(file))
	if o == nil {
		return true
	}
	for name := service; name != "" && !slices.Contains(o.chain, name); {
		o.chain = append(o.chain, name)
		s := document.Get(document.Get(o.doc.Root, "services"), name)
		if s == nil {
			return true // the loader says so
		}
		o.walk(s, "services.*", "services."+name)
		name = ""
		if e := document.Get(s, "extends"); e != nil {
			name, _ = o.text(e)
			if e.Kind == yaml.MappingNode && document.Get(e, "file") == nil {
				name, _ = o.text(document.Get(e, "service"))
			}
		}
	}
	return true
}

func (w *walker) abs(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(w.dir, path)
}

// open parses another file for walking; nil when it cannot be read or has
// been walked on the way here.
func (w *walker) open(n *yaml.Node, at, file, dir string) *walker {
	if slices.Contains(w.chain, file) || len(w.chain) > maxDepth {
		return nil // a circle, which the loader names
	}
	shown := file
	if rel, err := filepath.Rel(w.opts.Dir, file); err == nil && filepath.IsLocal(rel) {
		shown = rel
	}
	content, err := os.ReadFile(file)
	if err != nil {
		w.problem(n, at, "", "cannot read %q: %s", shown, reason(err))
		w.fatal = true
		return nil
	}
	docs, problems := document.Parse(shown, content)
	for _, p := range problems {
		w.add(p)
		w.fatal = true
	}
	if len(docs) == 0 {
		return nil
	}
	return &walker{
		load: w.load, doc: docs[0], dir: dir, chain: append(slices.Clone(w.chain), file),
		source: &source{file: File{Name: shown, Content: content}, docs: docs},
	}
}
