package source

import (
	"context"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"clocker.io/clocker/pkg/blueprint"
	"clocker.io/clocker/pkg/compose"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/source/document"
)

// Options are what a deploy says beside the files.
type Options struct {
	// Name is the name of the application whatever the files say (--app).
	Name string
	// Env are the caller's variables, for compose files.
	Env map[string]string
	// EnvFiles replace the .env of a compose file's directory.
	EnvFiles []string
	// Profiles are the active profiles of compose files.
	Profiles []string
	// ProjectDir replaces the directory that relative paths in compose files
	// start from; for standard input it is the current directory, which a
	// caller must give. An absolute path.
	ProjectDir string
}

// Detect tells the dialect of a file: [blueprint.Dialect] where services is a
// list, [compose.Dialect] where it is a map. Without services, the other keys
// and the name decide; "" means neither, or no YAML.
func Detect(name string, content []byte) string {
	docs, problems := document.Parse(name, content)
	if len(problems) > 0 || len(docs) == 0 {
		return ""
	}
	root := document.Resolve(docs[0].Root)
	if root == nil || root.Kind != yaml.MappingNode {
		return ""
	}
	switch s := document.Get(root, "services"); {
	case s == nil:
	case s.Kind == yaml.SequenceNode:
		return blueprint.Dialect
	case s.Kind == yaml.MappingNode:
		return compose.Dialect
	}
	has := func(keys ...string) bool {
		for _, k := range keys {
			if document.Get(root, k) != nil {
				return true
			}
		}
		return false
	}
	base := path.Base(strings.ReplaceAll(name, `\`, "/"))
	switch {
	case has("location", "locations", "origin", "brooklyn.catalog", "brooklyn.config", "brooklyn.parameters"):
		return blueprint.Dialect
	case has("include", "networks", "volumes", "secrets", "configs"):
		return compose.Dialect
	case slices.Contains(blueprintNames, base), strings.HasSuffix(base, ".bom"):
		return blueprint.Dialect
	case slices.Contains(composeNames, base), slices.Contains(overrideNames, base):
		return compose.Dialect
	case document.Get(root, "services") != nil || hasKey(root, "services"):
		return blueprint.Dialect // it says best what services must be
	}
	return ""
}

func hasKey(n *yaml.Node, key string) bool {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return true
		}
	}
	return false
}

// Load makes the model of the files that [Read] gave. The warnings are for
// the user. An error is [model.Problems] with every problem of the files, or
// the end of ctx.
func Load(ctx context.Context, files []File, opts Options) (*model.Application, []string, error) {
	dialect, err := oneDialect(files)
	if err != nil {
		return nil, nil, err
	}
	first := files[0]
	if dialect == blueprint.Dialect {
		if len(files) > 1 {
			return nil, nil, problem(files[1].Name, "a blueprint is one file, found another", "deploy them one by one")
		}
		app, err := blueprint.Parse(first.Name, first.Content, blueprint.Options{Name: opts.Name, DefaultName: first.DefaultName})
		return app, nil, err
	}
	o := compose.Options{
		Name: opts.Name, Env: opts.Env, EnvFiles: opts.EnvFiles, Profiles: opts.Profiles, Dir: opts.ProjectDir,
	}
	if o.Dir == "" {
		o.Dir = first.Dir
	}
	if first.Remote { // a file of this machine is named after its directory, as docker compose does
		o.DefaultName = first.DefaultName
	}
	var cs []compose.File
	for _, f := range files {
		cs = append(cs, compose.File{Name: f.Name, Content: f.Content, Remote: f.Remote})
	}
	return compose.Load(ctx, cs, o)
}

// oneDialect is the dialect of all the files.
func oneDialect(files []File) (string, error) {
	dialect := ""
	for i, f := range files {
		docs, problems := document.Parse(f.Name, f.Content)
		if err := problems.Err(); err != nil {
			return "", err
		}
		d := Detect(f.Name, f.Content)
		switch {
		case len(docs) == 0 || document.Null(docs[0].Root):
			return "", problem(f.Name, "the file is empty", "a blueprint or a compose file is a map with services")
		case d == "" && i == 0:
			return "", problem(f.Name, "neither a blueprint nor a compose file",
				"a map with services: a list of them in a blueprint, a map of them in a compose file")
		case d == "": // an override may say little
		case dialect != "" && d != dialect:
			return "", problem(f.Name, "a "+d+" file cannot be merged with a "+dialect+" file", "deploy them one by one")
		default:
			dialect = d
		}
	}
	if dialect == "" {
		return "", problem("", "there is no file to read", "")
	}
	return dialect, nil
}

func problem(file, text, remedy string) error {
	return model.Problems{{Position: model.Position{File: file}, Text: text, Remedy: remedy}}
}
