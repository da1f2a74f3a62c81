package command

import (
	"context"
	"fmt"
	"os"
	"strings"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/source"
)

// load reads an application with the user's environment. The strings are
// warnings. What cannot be read is the user's input, like what is wrong in it.
func (e *Env) load(ctx context.Context, o deployOptions) (*model.Application, []string, error) {
	so := source.Options{Name: o.app, Env: environment(os.Environ()), EnvFiles: o.envFiles, Profiles: o.profiles}
	if o.ref == "-" {
		dir, err := os.Getwd()
		if err != nil {
			return nil, nil, fmt.Errorf("read standard input: %w", err)
		}
		so.ProjectDir = dir
	}
	files, err := source.Read(ctx, o.ref, e.cli.In())
	if err != nil {
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		return nil, nil, invalid("%v", err)
	}
	return source.Load(ctx, files, so)
}

// environment turns NAME=VALUE lines into a map.
func environment(lines []string) map[string]string {
	env := map[string]string{}
	for _, l := range lines {
		if k, v, ok := strings.Cut(l, "="); ok && k != "" {
			env[k] = v
		}
	}
	return env
}
