// Package source finds and reads what a user deploys (a file, a directory, a
// URL, standard input), tells a blueprint from a compose file, and hands it
// to the front end of its dialect. It is the one place where front ends meet;
// it knows nothing of fleets.
//
// Design page: docs/design/model.md.
package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/source/document"
)

// File is a file as read.
type File struct {
	// Name is what problems call the file: the reference as the user gave
	// it, or "-".
	Name    string
	Content []byte
	// Dir is the absolute directory that relative paths in the file start
	// from; empty for standard input and URLs.
	Dir string
	// Remote files come from another machine.
	Remote bool
	// DefaultName is what the application is called when nothing in the file
	// says so; may be empty.
	DefaultName string
}

// The names that are looked for in a directory, best first. Of the compose
// names the first one there is taken, as docker compose does, with its
// override; of the blueprint names, which have no order among users, there
// may be only one.
var (
	composeNames   = []string{"compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"}
	overrideNames  = []string{"compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml"}
	blueprintNames = []string{"clocker.yaml", "clocker.yml", "blueprint.yaml", "blueprint.yml"}
)

// blueprintPattern are blueprints by their ending, after [blueprintNames].
const blueprintPattern = "*.bom"

// Read reads what ref names: "-" for stdin, an http:// or https:// URL, a
// directory, or a file. It gives more than one file only for a directory
// whose compose file has an override.
func Read(ctx context.Context, ref string, stdin io.Reader) ([]File, error) {
	switch scheme, _, url := strings.Cut(ref, "://"); {
	case ref == "":
		return nil, errors.New("read application: name a file, a directory, a URL or - for standard input")
	case ref == "-":
		content, err := readAll(stdin)
		if err != nil {
			return nil, fmt.Errorf("read standard input: %w", err)
		}
		return []File{{Name: "-", Content: content}}, nil
	case url && (scheme == "http" || scheme == "https"):
		return readURL(ctx, ref)
	case url:
		return nil, fmt.Errorf("read %s: %s:// is not supported: use a path, http:// or https://", ref, scheme)
	}
	info, err := os.Stat(ref)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", ref, pathCause(err))
	}
	if info.IsDir() {
		return readDir(ref)
	}
	f, err := readFile(ref)
	if err != nil {
		return nil, err
	}
	return []File{f}, nil
}

func readFile(name string) (File, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return File{}, fmt.Errorf("read %s: %w", name, err)
	}
	r, err := os.Open(abs)
	if err != nil {
		return File{}, fmt.Errorf("read %s: %w", name, pathCause(err))
	}
	defer r.Close()
	content, err := readAll(r)
	if err != nil {
		return File{}, fmt.Errorf("read %s: %w", name, pathCause(err))
	}
	return File{Name: name, Content: content, Dir: filepath.Dir(abs)}, nil
}

// readDir finds the application's file in a directory.
func readDir(dir string) ([]File, error) {
	blueprints := present(dir, blueprintNames)
	boms, err := filepath.Glob(filepath.Join(escapeGlob(dir), blueprintPattern))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", dir, err)
	}
	for _, b := range boms {
		blueprints = append(blueprints, filepath.Base(b))
	}
	compose := present(dir, composeNames)
	all := append(append([]string{}, compose[:min(1, len(compose))]...), blueprints...)
	switch {
	case len(all) == 0:
		return nil, fmt.Errorf("read %s: no application found: looked for %s, %s and %s", dir,
			strings.Join(composeNames, ", "), strings.Join(blueprintNames, ", "), blueprintPattern)
	case len(all) > 1:
		return nil, fmt.Errorf("read %s: several applications found, name one: %s", dir, strings.Join(all, ", "))
	}
	names := all
	if len(compose) > 0 {
		if overrides := present(dir, overrideNames); len(overrides) > 0 {
			names = append(names, overrides[0])
		}
	}
	var files []File
	for _, n := range names {
		f, err := readFile(filepath.Join(dir, n))
		if err != nil {
			return nil, err
		}
		f.DefaultName = model.Slug(filepath.Base(f.Dir))
		files = append(files, f)
	}
	return files, nil
}

func present(dir string, names []string) []string {
	var out []string
	for _, n := range names {
		if info, err := os.Stat(filepath.Join(dir, n)); err == nil && !info.IsDir() {
			out = append(out, n)
		}
	}
	return out
}

func escapeGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(s)
}

// readAll reads a file of a size that a user can have written.
func readAll(r io.Reader) ([]byte, error) {
	content, err := io.ReadAll(io.LimitReader(r, document.MaxSize+1))
	if err != nil {
		return nil, err
	}
	if len(content) > document.MaxSize {
		return nil, fmt.Errorf("larger than %d MiB", document.MaxSize>>20)
	}
	return content, nil
}

// pathCause is an error of the file system without the path, which the
// message has already.
func pathCause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
