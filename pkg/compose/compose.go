// Package compose reads compose files into the application model. compose-go
// does the loading: several files, profiles, variables, anchors, extends and
// include; this package adds what it does not have: every key that the fleet
// does not carry out is refused with its line and what to do instead, never
// dropped, and every problem of the files is reported at once. It reads the
// files that a compose file names (env_file, extends, include, .env) and
// nothing else, and never talks to a fleet.
//
// Design page: docs/design/model.md.
package compose

import (
	"cmp"
	"context"
	"maps"
	"path/filepath"
	"strings"

	"github.com/compose-spec/compose-go/v2/consts"
	"github.com/compose-spec/compose-go/v2/loader"
	"go.yaml.in/yaml/v4"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/placement/lint"
)

// Dialect is what [model.Application] calls compose files.
const Dialect = "compose"

// File is one compose file; later files override earlier ones.
type File struct {
	// Name is shown in problems and recorded in positions.
	Name    string
	Content []byte
	// Remote files come from another machine and may not name files of this
	// one.
	Remote bool
}

// Options are what a deploy says beside the files.
type Options struct {
	// Name is the name of the application whatever the files say.
	Name string
	// DefaultName is the name where the files give none; empty means the
	// base name of Dir.
	DefaultName string
	// Env are the variables of the caller; they win over .env.
	Env map[string]string
	// EnvFiles replace Dir's .env.
	EnvFiles []string
	// Profiles are the active ones; none means COMPOSE_PROFILES of Env.
	Profiles []string
	// Dir is what relative paths in the files start from; an absolute path.
	Dir string
}

// Load reads the files. The warnings are for the user and keep nothing from
// being deployed. An error is [model.Problems], sorted, with every problem of
// the files, or the end of ctx.
func Load(ctx context.Context, files []File, opts Options) (*model.Application, []string, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	l := &load{opts: opts, index: map[string]model.Position{}, said: map[string]bool{},
		lists: map[string]*yaml.Node{}, numbers: map[*yaml.Node][]int{}, loaded: map[string][]string{}}
	if l.opts.Dir == "" {
		l.opts.Dir = string(filepath.Separator)
	}
	app := l.run(ctx, files)
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	if app != nil {
		found := model.Validate(app)
		for _, e := range app.Services() {
			found = append(found, lint.Service(e.Service.Placement, Dialect, "services."+e.ID)...)
		}
		for _, p := range found {
			if p = l.placed(p); !l.said[p.Path] || p.Path == "" {
				l.problems = append(l.problems, p)
			}
		}
		dropUnused(app)
	}
	if err := l.problems.Err(); err != nil {
		return nil, l.warnings, err
	}
	return app, l.warnings, nil
}

// run reads the files as far as they can be read.
func (l *load) run(ctx context.Context, files []File) *model.Application {
	defer l.captureWarnings()()
	l.environment(files)
	l.parse(files)
	if l.fatal {
		return nil
	}
	name, explicit := l.name()
	project := l.project(ctx, name, explicit)
	if project == nil {
		return nil
	}
	return l.application(project)
}

// load is one run of Load.
type load struct {
	opts     Options
	env      map[string]string
	sources  []*source
	problems model.Problems
	warnings []string
	// index knows where each key of the files stands, by path; the last file
	// wins.
	index map[string]model.Position
	// lists are the lists of the files by path, numbers the user's numbers of
	// what is left in one that lost an item, and loaded the paths of what the
	// loader made of one.
	lists   map[string]*yaml.Node
	numbers map[*yaml.Node][]int
	loaded  map[string][]string
	// said are the paths that have a problem already.
	said map[string]bool
	// fatal means that the files cannot be read any further.
	fatal bool
	// foreign means that a file which the loader reads by itself has
	// problems: it would only repeat them.
	foreign bool
	// visited counts the nodes walked, over aliases too.
	visited int
}

func (l *load) add(p model.Problem) {
	l.problems = append(l.problems, p)
	l.said[p.Path] = true
}

// at is where a path stands in the files, or the nearest place above it.
func (l *load) at(path string) model.Position {
	for path != "" {
		if p, ok := l.index[path]; ok {
			return p
		}
		cut := strings.LastIndexAny(path, ".[")
		if cut < 0 {
			break
		}
		path = path[:cut]
	}
	return model.Position{File: l.file()}
}

// placed gives a problem of the model its place in the files: the more precise
// one of what the problem knows and of where its path stands.
func (l *load) placed(p model.Problem) model.Problem {
	p.Path = l.renumber(p.Path)
	for _, spelled := range spellings(p.Path) {
		if _, ok := l.index[spelled]; ok {
			p.Path = spelled
			break
		}
	}
	at := l.at(p.Path)
	behind := at.File == p.Position.File && cmp.Or(cmp.Compare(at.Line, p.Position.Line), cmp.Compare(at.Column, p.Position.Column)) > 0
	if at.Line > 0 && (p.Position.Line == 0 || behind) {
		p.Position = at
	}
	if p.Position.File == "" {
		p.Position.File = l.file()
	}
	return p
}

// shortForms are the keys of a service that say what one under deploy does.
var shortForms = []struct{ deploy, short string }{
	{".deploy.resources.limits.cpus", ".cpus"},
	{".deploy.resources.limits.memory", ".mem_limit"},
	{".deploy.resources.limits.pids", ".pids_limit"},
	{".deploy.resources.reservations.memory", ".mem_reservation"},
}

// spellings are the ways in which a compose file can write what the model has
// in one place.
func spellings(path string) []string {
	for _, s := range shortForms {
		if head, ok := strings.CutSuffix(path, s.deploy); ok {
			return []string{path, head + s.short}
		}
	}
	head, last := path, ""
	if cut := strings.LastIndexByte(path, '.'); cut >= 0 {
		head, last = path[:cut], path[cut+1:]
	}
	switch last {
	case "replicas":
		return []string{head + ".scale", head + ".deploy.replicas"}
	case "subnet", "gateway":
		return []string{head + ".ipam.config[0]." + last}
	}
	return nil
}

func (l *load) file() string {
	if len(l.sources) == 0 {
		return ""
	}
	return l.sources[0].file.Name
}

// name is the project's name and whether it wins over the files' own.
func (l *load) name() (name string, explicit bool) {
	for _, n := range []string{l.opts.Name, l.env[consts.ComposeProjectName]} {
		if n == "" {
			continue
		}
		if !model.ValidName(n) {
			l.add(model.Problem{Text: `"` + n + `" cannot be the name of an application`,
				Remedy: "lower case letters, digits, \"-\" and \"_\""})
			n = "unnamed"
		}
		return n, true
	}
	name = l.opts.DefaultName
	if name == "" {
		name = filepath.Base(l.opts.Dir)
	}
	return loader.NormalizeProjectName(name), false
}

// environment are the variables for the files: the caller's, then those of
// .env.
func (l *load) environment(files []File) {
	l.env = map[string]string{}
	maps.Copy(l.env, l.opts.Env)
	remote := len(files) > 0 && files[0].Remote
	l.dotEnv(remote)
}
