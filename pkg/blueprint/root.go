package blueprint

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/source/document"
)

// rootKeys are the keys of a document (spec/clocker.md §5.1); a text is the
// remedy for one that is not built yet.
var rootKeys = map[string]string{
	"id": "", "name": "", "description": "", "origin": "", "version": "",
	"location": "", "locations": "", "services": "",
	"brooklyn.config":       "",
	"brooklyn.policies":     "leave it out: the number of replicas is fixed until policies are there",
	"brooklyn.enrichers":    "leave it out: no sensor depends on it yet",
	"brooklyn.initializers": "leave it out",
	"brooklyn.parameters":   "write the values into the file",
	"brooklyn.children":     "list every service under services",
	"brooklyn.tags":         "leave it out",
	"brooklyn.catalog":      "a catalog is no application: deploy a file with services",
}

// application reads the whole document. It is never nil, and incomplete where
// there were problems.
func (r *reader) application(opts Options) *model.Application {
	app := &model.Application{
		Dialect:  Dialect,
		Networks: []*model.Network{{Name: model.DefaultNetwork}},
	}
	entries := r.entries(r.doc.Root, "", "a blueprint is a map with a list of services")
	var id, services *entry
	for i, e := range entries {
		remedy, known := rootKeys[e.key]
		switch {
		case !known:
			r.add(e.node, e.path, model.DidYouMean(e.key, keysOf(rootKeys), "the keys are id, name, description, origin, version, location, services"),
				"unknown key %q", e.key)
		case remedy != "":
			r.notBuilt(e.node, e.path, e.key, remedy)
		case e.key == "id":
			id = &entries[i]
		case e.key == "services":
			services = &entries[i]
		}
	}
	app.Title = r.rootText(entries, "name")
	app.Description = r.rootText(entries, "description")
	app.Origin = r.rootText(entries, "origin")
	app.Version = r.rootText(entries, "version")
	app.Location = r.locations(entries, "")
	app.Name = r.name(id, app.Title, opts)
	r.rootConfig(entries)
	switch {
	case services != nil:
		r.services(services, app)
	case len(entries) > 0:
		r.add(r.doc.Root, "services", "list them under services:", "the blueprint has no services")
	}
	r.once()
	return app
}

// rootConfig reads the configuration that services inherit.
func (r *reader) rootConfig(entries []entry) {
	r.config = map[string]setting{}
	for _, root := range entries {
		if root.key != "brooklyn.config" || document.Null(root.value) {
			continue
		}
		for _, e := range r.entries(root.value, root.path, "such as {docker.container.strategies: [breadth-first]}") {
			k, known := serviceKeys[e.key]
			switch {
			case !known:
				r.add(e.node, e.path, model.DidYouMean(e.key, inherited, "the keys here are "+strings.Join(inherited, ", ")), "unknown key %q", e.key)
			case k.remedy != "":
				r.notBuilt(e.node, e.path, e.key, k.remedy)
			case !slices.Contains(inherited, k.full):
				r.add(e.node, e.path, "give each service its own", "%q is not inherited from the application", e.key)
			case r.config[k.full].node != nil:
				r.add(e.node, e.path, "keep one of them", "%q says the same as %q on line %d", e.key, r.config[k.full].key, r.config[k.full].node.Line)
			default:
				r.config[k.full] = setting{e, k.full}
			}
		}
	}
}

// once drops problems that were found once for each service which inherits
// them.
func (r *reader) once() {
	seen := map[model.Problem]bool{}
	r.problems = slices.DeleteFunc(r.problems, func(p model.Problem) bool {
		twice := seen[p]
		seen[p] = true
		return twice
	})
}

// rootText reads an optional text of the root.
func (r *reader) rootText(entries []entry, key string) string {
	for _, e := range entries {
		if e.key == key && !document.Null(e.value) {
			s, _ := r.plain(e.value, e.path)
			return s
		}
	}
	return ""
}

// name decides what the application is called: by the caller, by id, by name,
// by the file.
func (r *reader) name(id *entry, title string, opts Options) string {
	var fromID string
	if id != nil {
		var ok bool
		if fromID, ok = r.plain(id.value, id.path); ok && opts.Name == "" && !model.ValidName(fromID) {
			r.add(id.value, id.path, fmt.Sprintf("write id: %s, or deploy with --app NAME", orElse(model.Slug(fromID), "NAME")),
				"%q cannot be the name of an application", fromID)
			return "unnamed" // the rest is still read; the problem above keeps it from being used
		}
	}
	for _, n := range []string{opts.Name, fromID, model.Slug(title), opts.DefaultName, baseName(r.doc.File)} {
		if n != "" {
			return n
		}
	}
	return ""
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// notBuilt refuses something that the old dialect has.
func (r *reader) notBuilt(n *yaml.Node, path, what, remedy string) {
	r.add(n, path, remedy, "%q is known from the old dialect but not built yet", what)
}
