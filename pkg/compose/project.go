package compose

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/compose-spec/compose-go/v2/consts"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/tree"
	"github.com/compose-spec/compose-go/v2/types"

	"clocker.io/clocker/pkg/model"
)

// maxRounds bounds how often the files are loaded again without what the
// loader refused the time before.
const maxRounds = 30

var missing = regexp.MustCompile(`^missing propert| is missing( a mount target| a target port)?$|^empty compose file$`)

// project loads the files with compose-go. It stops at its first error; so
// that every problem is found, what it names is taken out and the rest loaded
// again. Nil means that nothing could be loaded, and that problems say why.
func (l *load) project(ctx context.Context, name string, explicit bool) *types.Project {
	if l.foreign {
		return nil
	}
	for round := 0; round < maxRounds && ctx.Err() == nil; round++ {
		p, err := l.attempt(ctx, name, explicit)
		if err == nil {
			return l.resolve(p)
		}
		again := false
		for _, f := range findings(err) {
			// What is missing once something was taken out is missing for that.
			gap := round > 0 && missing.MatchString(f.text)
			at, pruned := l.prune(f.path)
			if at == "" {
				at = f.path
			}
			if !l.said[at] && !gap {
				l.add(model.Problem{Position: l.at(at), Path: at, Text: f.text, Remedy: f.remedy})
			}
			again = again || pruned
		}
		if !again {
			if len(l.problems) == 0 {
				l.add(model.Problem{Position: model.Position{File: l.file()}, Text: err.Error()})
			}
			return nil
		}
	}
	return nil
}

// attempt loads the files once.
func (l *load) attempt(ctx context.Context, name string, explicit bool) (p *types.Project, err error) {
	// The loader asserts types of what it has not checked in a few places.
	defer func() {
		if r := recover(); r != nil {
			p, err = nil, fmt.Errorf("the file has a shape that a compose file cannot have: %v", r)
		}
	}()
	details := types.ConfigDetails{WorkingDir: l.opts.Dir, Environment: maps.Clone(l.env)}
	for _, s := range l.sources {
		details.ConfigFiles = append(details.ConfigFiles, types.ConfigFile{
			Filename: filepath.Join(l.opts.Dir, filepath.Base(s.file.Name)), Content: s.content(),
		})
	}
	p, err = loader.LoadWithContext(ctx, details, func(o *loader.Options) {
		o.SetProjectName(name, explicit)
		o.Profiles = l.profiles()
		o.SkipConsistencyCheck = true   // model.Validate reports all at once
		o.ResolvePaths = false          // a relative bind source must be seen
		o.SkipResolveEnvironment = true // env_file is resolved below, with its place
		o.SkipResolveLabels = true
	}, loader.WithSupportedAttributes(supported, l.unsupported))
	return p, err
}

// supported are the keys that may be left when everything else was refused by
// the walk over the files, in the loader's form.
var supported = func() []tree.Path {
	var out []tree.Path
	for k := range done {
		out = append(out, tree.Path(k))
		if opaque[k] {
			out = append(out, tree.Path(k+".*"), tree.Path(k+".[].*"))
		}
	}
	// The long forms that the loader gives to short ones.
	for _, k := range []string{
		"services.*.ports.[]", "services.*.volumes.[]", "networks.*.ipam.config.[]", "services.*.devices.[]", "services.*.gpus.[]",
		"services.*.deploy.placement.preferences.[]", "services.*.deploy.resources.reservations.devices.[]",
		"services.*.deploy.resources.reservations.generic_resources.[]",
	} {
		out = append(out, tree.Path(k))
	}
	return out
}()

// unsupported is the second net under the walk: what it missed, in whatever
// way the key got into the model, is refused too, if without a line.
func (l *load) unsupported(found []loader.UnsupportedAttribute) {
	for _, u := range found {
		path := strings.ReplaceAll(u.Path.String(), ".[]", "[]")
		if path == "version" || path == "name" || l.said[path] {
			continue
		}
		l.add(model.Problem{Position: l.at(path), Path: path, Text: "this key is not supported yet", Remedy: "leave it out"})
	}
}

func (l *load) profiles() []string {
	if len(l.opts.Profiles) > 0 {
		return l.opts.Profiles
	}
	var out []string
	for _, p := range strings.Split(l.env[consts.ComposeProfiles], ",") {
		if p = strings.TrimSpace(p); p != "" {
			out = append(out, p)
		}
	}
	return out
}

// resolve reads the services' env files.
func (l *load) resolve(p *types.Project) *types.Project {
	ok := true
	for name, s := range p.Services {
		for i, f := range s.EnvFiles {
			if !filepath.IsAbs(f.Path) {
				s.EnvFiles[i].Path = filepath.Join(l.opts.Dir, f.Path)
			}
			if _, err := os.Stat(s.EnvFiles[i].Path); err != nil && bool(f.Required) {
				at := "services." + name + ".env_file"
				l.add(model.Problem{Position: l.at(at), Path: at, Text: fmt.Sprintf("cannot read %q: %s", f.Path, reason(err)),
					Remedy: "paths start from " + l.opts.Dir})
				ok = false
			}
		}
	}
	if !ok {
		return p
	}
	resolved, err := p.WithServicesEnvironmentResolved(true)
	if err != nil {
		l.add(model.Problem{Position: model.Position{File: l.file()}, Text: err.Error(), Remedy: "an env file holds NAME=value lines"})
		return p
	}
	return resolved
}

// reason is an error of the file system without the path that is shown
// already.
func reason(err error) string {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}
