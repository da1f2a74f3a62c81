package compose

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/template"
	"go.yaml.in/yaml/v4"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/source/document"
)

// source is a file as the loader will see it.
type source struct {
	file File
	docs []*document.Document
	// changed means that refused parts were taken out of docs, so that the
	// loader can find what else is wrong.
	changed bool
}

// content is the text for the loader.
func (s *source) content() []byte {
	if !s.changed {
		return s.file.Content
	}
	var out strings.Builder
	for i, d := range s.docs {
		if i > 0 {
			out.WriteString("---\n")
		}
		b, err := yaml.Marshal(d.Root)
		if err != nil {
			return s.file.Content
		}
		out.Write(b)
	}
	return []byte(out.String())
}

// parse reads every file as YAML and walks its keys.
func (l *load) parse(files []File) {
	for _, f := range files {
		docs, problems := document.Parse(f.Name, f.Content)
		for _, p := range problems {
			l.add(p)
		}
		s := &source{file: f, docs: docs}
		l.sources = append(l.sources, s)
	}
	if len(l.problems) > 0 {
		l.fatal = true
		return
	}
	for _, s := range l.sources {
		empty := true
		for _, d := range s.docs {
			empty = empty && document.Null(d.Root)
			w := &walker{load: l, source: s, doc: d, dir: l.opts.Dir, prune: true}
			w.root()
		}
		if empty {
			l.add(model.Problem{Position: model.Position{File: s.file.Name}, Text: "the file is empty", Remedy: "a compose file is a map with services"})
			l.fatal = true
		}
	}
}

// dotEnv adds the variables of the env files, or of .env beside a file of
// this machine.
func (l *load) dotEnv(remote bool) {
	files := l.opts.EnvFiles
	if len(files) == 0 {
		dot := filepath.Join(l.opts.Dir, ".env")
		if s, err := os.Stat(dot); remote || err != nil || s.IsDir() {
			return
		}
		files = []string{dot}
	}
	vars, err := dotenv.GetEnvFromFile(l.env, files)
	if err != nil {
		l.add(model.Problem{Position: model.Position{File: files[0]}, Text: err.Error(), Remedy: "write NAME=value lines"})
		return
	}
	for k, v := range vars {
		if _, set := l.env[k]; !set {
			l.env[k] = v
		}
	}
}

// substitute replaces the variables of a text, quietly.
func (l *load) substitute(text string) (string, error) {
	return template.SubstituteWithOptions(text, func(k string) (string, bool) {
		v, ok := l.env[k]
		return v, ok
	}, template.WithPattern(template.DefaultPattern), template.WithoutLogging)
}

var variable = regexp.MustCompile(`\$\{?([A-Za-z_][A-Za-z0-9_]*)`)

// uses finds the first line that names a variable.
func (l *load) uses(name string) model.Position {
	for _, s := range l.sources {
		for i, line := range strings.Split(string(s.file.Content), "\n") {
			for _, m := range variable.FindAllStringSubmatch(line, -1) {
				if m[1] == name {
					return model.Position{File: s.file.Name, Line: i + 1}
				}
			}
		}
	}
	return model.Position{File: l.file()}
}
