// Package blueprint reads a Brooklyn-style blueprint (CAMP YAML,
// spec/clocker.md §5) into the application model. One pass over the whole
// document finds every problem; nothing that the file says is dropped: what
// is not built yet is refused by name, with what to write instead. The
// package opens no file and reaches no fleet, so whether a location is the
// fleet at hand is for the controller to say.
//
// Design page: docs/design/blueprint.md.
package blueprint

import (
	"fmt"
	"path"
	"strings"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/placement/lint"
	"clocker.io/clocker/pkg/source/document"
)

// Options are what a deploy says beside the file.
type Options struct {
	// Name is the name of the application whatever the file says.
	Name string
	// DefaultName is the name where the file gives none; empty means the
	// base name of the file.
	DefaultName string
}

// Dialect is what [model.Application] calls blueprints.
const Dialect = "blueprint"

// Parse reads a blueprint. The file's name is shown in problems and recorded
// in positions; "-" stands for standard input. An error is [model.Problems],
// sorted, with every problem of the file.
func Parse(file string, content []byte, opts Options) (*model.Application, error) {
	docs, problems := document.Parse(file, content)
	if len(problems) > 0 {
		return nil, problems.Err()
	}
	r := &reader{doc: &document.Document{File: file}}
	switch {
	case len(docs) == 0 || document.Null(docs[0].Root):
		r.add(nil, "", "a blueprint is a map with a list of services", "the file is empty")
		return nil, r.problems.Err()
	case len(docs) > 1:
		r.doc = docs[1]
		r.add(docs[1].Root, "", "put each application in a file of its own", "the file holds %d YAML documents", len(docs))
		return nil, r.problems.Err()
	}
	r.doc = docs[0]
	app := r.application(opts)
	r.validate(app)
	r.characters()
	if err := r.problems.Err(); err != nil {
		return nil, err
	}
	return app, nil
}

// characters adds what is wrong with the very characters of a value, in the
// place of what was made of it.
func (r *reader) characters() {
	found := r.doc.Characters()
	said := map[string]bool{}
	for _, p := range found {
		said[p.Path] = true
	}
	for _, p := range r.problems {
		if !said[p.Path] || p.Path == "" {
			found = append(found, p)
		}
	}
	r.problems = found
}

// validate adds the rules of every dialect, less what the reader has said
// about the same place already.
func (r *reader) validate(app *model.Application) {
	said := map[string]bool{}
	for _, p := range r.problems {
		said[p.Path] = true
	}
	found := model.Validate(app)
	for i, e := range app.Entities {
		if e.Service != nil {
			found = append(found, lint.Service(e.Service.Placement, Dialect, fmt.Sprintf("services[%d]", i))...)
		}
	}
	for _, p := range found {
		if p.Position.File == "" {
			p.Position = model.Position{File: r.doc.File}
		}
		if !said[p.Path] || p.Path == "" {
			r.problems = append(r.problems, p)
		}
	}
}

// baseName is the file's name without directory and ending, as a name of an
// application; empty for standard input.
func baseName(file string) string {
	if file == "-" {
		return ""
	}
	base := path.Base(strings.ReplaceAll(file, `\`, "/"))
	return model.Slug(strings.TrimSuffix(base, path.Ext(base)))
}
