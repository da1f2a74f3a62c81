package compose

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/source/document"
)

// application makes the model of a loaded project.
func (l *load) application(p *types.Project) *model.Application {
	app := &model.Application{Name: p.Name, Dialect: Dialect}
	l.fileKeys(p)
	for _, name := range l.ordered(slices.Collect(maps.Keys(p.Services)), "services.") {
		app.Entities = append(app.Entities, l.service(p, name))
	}
	if len(app.Entities) == 0 && len(l.problems) == 0 {
		l.noServices(p)
	}
	for _, n := range l.ordered(slices.Collect(maps.Keys(p.Networks)), "networks.") {
		net := l.network(p, n)
		if n == model.DefaultNetwork {
			app.Networks = append([]*model.Network{net}, app.Networks...)
		} else {
			app.Networks = append(app.Networks, net)
		}
	}
	return app
}

// dropUnused leaves out networks that no service joins, as compose does.
func dropUnused(app *model.Application) {
	used := map[string]bool{}
	for _, e := range app.Services() {
		for _, a := range e.Service.Networks {
			used[a.Network] = true
		}
	}
	app.Networks = slices.DeleteFunc(app.Networks, func(n *model.Network) bool { return !used[n.Name] })
}

// fileKeys warns of what the loader reads in another way than it is written.
func (l *load) fileKeys(p *types.Project) {
	for _, s := range l.sources {
		for _, d := range s.docs {
			for i := 0; d.Root != nil && i+1 < len(d.Root.Content); i += 2 {
				k, v := d.Root.Content[i], document.Resolve(d.Root.Content[i+1])
				switch k.Value {
				case "version":
					l.warn(fmt.Sprintf("%s: version is obsolete and ignored", d.At(k)))
				case "name":
					if text, err := l.substitute(v.Value); err == nil && l.opts.Name == "" && text != p.Name && text != "" {
						l.warn(fmt.Sprintf("%s: the name %q is read as %q", d.At(v), text, p.Name))
					}
				}
			}
		}
	}
}

func (l *load) noServices(p *types.Project) {
	var profiles []string
	for _, s := range p.DisabledServices {
		profiles = append(profiles, s.Profiles...)
	}
	slices.Sort(profiles)
	profiles = slices.Compact(profiles)
	problem := model.Problem{Position: l.at("services"), Path: "services", Text: "the file has no services", Remedy: "list them under services:"}
	if len(profiles) > 0 {
		problem.Text = "no service belongs to an active profile"
		problem.Remedy = "choose one with --profile: " + strings.Join(profiles, ", ")
	}
	l.add(problem)
}

// ordered sorts names by where they stand in the files.
func (l *load) ordered(names []string, prefix string) []string {
	files := map[string]int{}
	for i, s := range l.sources {
		files[s.file.Name] = i + 1
	}
	slices.SortFunc(names, func(a, b string) int {
		p, q := l.index[prefix+a], l.index[prefix+b]
		return cmp.Or(cmp.Compare(files[p.File], files[q.File]), cmp.Compare(p.Line, q.Line), cmp.Compare(p.Column, q.Column), cmp.Compare(a, b))
	})
	return names
}
