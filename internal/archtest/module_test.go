package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const modulePath = "clocker.io/clocker"

// pkg is a package of this module, as the go command lists it.
type pkg struct {
	ImportPath   string
	Dir          string
	Name         string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Standard     bool
}

// rel is the package's directory within the module, "" for its root.
func (p *pkg) rel() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, modulePath), "/")
}

// files are the paths of the package's files that are no tests.
func (p *pkg) files() []string { return p.paths(p.GoFiles) }

func (p *pkg) paths(names ...[]string) []string {
	var out []string
	for _, ns := range names {
		for _, n := range ns {
			out = append(out, filepath.Join(p.Dir, n))
		}
	}
	return out
}

// root is the directory of go.mod.
var root = sync.OnceValues(func() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("find go.mod: in no directory above")
		}
		dir = up
	}
})

func moduleRoot(t *testing.T) string {
	t.Helper()
	dir, err := root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// list asks the go command once for every package of the module.
var list = sync.OnceValues(func() ([]*pkg, error) {
	dir, err := root()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "list", "-e",
		"-json=ImportPath,Dir,Name,GoFiles,TestGoFiles,XTestGoFiles,Imports,TestImports,XTestImports,Standard", "./...")
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	b, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	var out []*pkg
	for d := json.NewDecoder(bytes.NewReader(b)); ; {
		p := new(pkg)
		if err := d.Decode(p); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
})

func packages(t *testing.T) []*pkg {
	t.Helper()
	ps, err := list()
	if err != nil {
		t.Fatalf("list packages: %v", err)
	}
	if len(ps) < 5 {
		t.Fatalf("list packages: only %d found, the test is looking in the wrong place", len(ps))
	}
	return ps
}

// under returns the packages in a directory of the module and below.
func under(ps []*pkg, dir string) []*pkg {
	var out []*pkg
	for _, p := range ps {
		if isUnder(p.rel(), dir) {
			out = append(out, p)
		}
	}
	return out
}

// isUnder reports whether a directory of the module is dir or within it.
func isUnder(rel, dir string) bool { return rel == dir || strings.HasPrefix(rel, dir+"/") }

// inModule returns the directory within the module of an import path.
func inModule(path string) (rel string, ok bool) { return strings.CutPrefix(path, modulePath+"/") }

// closure returns, for a package, every package of the module that it imports,
// itself included, each with the chain of imports that leads there.
func closure(ps []*pkg, from *pkg) map[*pkg]string {
	byPath := make(map[string]*pkg, len(ps))
	for _, p := range ps {
		byPath[p.ImportPath] = p
	}
	chains := map[*pkg]string{from: from.rel()}
	for todo := []*pkg{from}; len(todo) > 0; {
		p := todo[0]
		todo = todo[1:]
		for _, path := range p.Imports {
			next := byPath[path]
			if next == nil || chains[next] != "" {
				continue
			}
			chains[next] = chains[p] + " → " + next.rel()
			todo = append(todo, next)
		}
	}
	return chains
}

var fset = token.NewFileSet()

func parse(t *testing.T, path string) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// uses reports every use of a name of an imported package, such as time.Now,
// for which bad answers true.
func uses(f *ast.File, bad func(importPath, name string) bool) []string {
	imported := make(map[string]string)
	for _, im := range f.Imports {
		path := strings.Trim(im.Path.Value, `"`)
		name := path[strings.LastIndex(path, "/")+1:]
		if im.Name != nil {
			name = im.Name.Name
		}
		imported[name] = path
	}
	var found []string
	ast.Inspect(f, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		x, ok := s.X.(*ast.Ident)
		if !ok || imported[x.Name] == "" {
			return true
		}
		if bad(imported[x.Name], s.Sel.Name) {
			pos := fset.Position(s.Pos())
			found = append(found, pos.String()+": "+x.Name+"."+s.Sel.Name)
		}
		return true
	})
	return found
}
