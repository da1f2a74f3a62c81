package archtest

import (
	"bufio"
	"bytes"
	"go/ast"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestPackagesHaveAComment(t *testing.T) {
	for _, p := range packages(t) {
		var docs []string
		files := p.files()
		if len(files) == 0 {
			files = p.paths(p.TestGoFiles, p.XTestGoFiles)
		}
		for _, f := range files {
			if d := parse(t, f).Doc; d != nil {
				docs = append(docs, d.Text())
			}
		}
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = "Command "
		}
		if !slices.ContainsFunc(docs, func(d string) bool { return strings.HasPrefix(d, want) }) {
			t.Errorf("%s: no package comment that starts with %q", p.rel(), want)
		}
	}
}

func TestPackagesAreNamedForARole(t *testing.T) {
	drawer := []string{"util", "utils", "common", "helper", "helpers", "misc", "base", "data", "lib", "shared", "manager2"}
	for _, p := range packages(t) {
		for _, name := range []string{p.Name, path.Base(p.ImportPath)} {
			if slices.Contains(drawer, name) {
				t.Errorf("%s: %s is a drawer, not a role", p.rel(), name)
			}
		}
	}
}

const maxLines = 500

func TestFilesAreShort(t *testing.T) {
	generated := regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)
	for _, p := range packages(t) {
		for _, f := range p.files() {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if n := bytes.Count(b, []byte("\n")); n > maxLines && !generated.Match(b) {
				t.Errorf("%s has %d lines: split it along its roles, %d are enough", f, n, maxLines)
			}
		}
	}
}

// Every test is there to be run: one that skips itself says nothing.
func TestNothingSkips(t *testing.T) {
	for _, p := range packages(t) {
		for _, path := range p.paths(p.GoFiles, p.TestGoFiles, p.XTestGoFiles) {
			ast.Inspect(parse(t, path), func(n ast.Node) bool {
				c, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				s, ok := c.Fun.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				x, ok := s.X.(*ast.Ident)
				if !ok {
					return true
				}
				skips := []string{"Skip", "Skipf", "SkipNow"}
				if slices.Contains([]string{"t", "b", "tb", "f"}, x.Name) && slices.Contains(skips, s.Sel.Name) ||
					x.Name == "testing" && s.Sel.Name == "Short" {
					t.Errorf("%s: %s.%s", fset.Position(c.Pos()), x.Name, s.Sel.Name)
				}
				return true
			})
		}
	}
}

func TestMakefileTargetsAreDocumented(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(moduleRoot(t), "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	target := regexp.MustCompile(`^([a-z][a-z0-9-]*):(?:[^=]|$)`)
	phony := make(map[string]bool)
	var targets []string
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		line := s.Text()
		if names, ok := strings.CutPrefix(line, ".PHONY:"); ok {
			for _, n := range strings.Fields(names) {
				phony[n] = true
			}
		}
		if m := target.FindStringSubmatch(line); m != nil {
			targets = append(targets, m[1])
			if !strings.Contains(line, " ## ") {
				t.Errorf("Makefile: target %s has no ## comment for make help", m[1])
			}
		}
	}
	for _, name := range targets {
		if !phony[name] {
			t.Errorf("Makefile: target %s is not .PHONY", name)
		}
	}
	for _, name := range []string{"help", "build", "install", "fmt", "lint", "test", "e2e", "bench", "demo", "demo-down"} {
		if !slices.Contains(targets, name) {
			t.Errorf("Makefile: no target %s", name)
		}
	}
}
