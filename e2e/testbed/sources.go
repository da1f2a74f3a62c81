package testbed

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

const (
	modulePath   = "clocker.io/clocker"
	imageSources = "examples/images"
)

// moduleRoot is where the sources of the images' programs are: where this file
// was compiled from (not known in a trimmed build), or the module around this
// program or around the working directory.
func moduleRoot() (string, error) {
	var starts []string
	if _, file, _, ok := runtime.Caller(0); ok && filepath.IsAbs(file) {
		starts = append(starts, filepath.Dir(file))
	}
	if exe, err := os.Executable(); err == nil {
		starts = append(starts, filepath.Dir(exe))
	}
	if wd, err := os.Getwd(); err == nil {
		starts = append(starts, wd)
	}
	for _, dir := range starts {
		for ; dir != "/"; dir = filepath.Dir(dir) {
			b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
			if err == nil && slices.Contains(strings.Split(string(b), "\n"), "module "+modulePath) {
				return dir, nil
			}
		}
	}
	return "", errNoSources
}

// imagesKey is a checksum of all that the images are made from: recipes, root
// trees, the programs' sources and the versions of what they import.
func imagesKey(root string, trees imageTrees) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%#v\n%s\n%s\n%s\n", recipes, filepath.Base(trees.tools), filepath.Base(trees.shell), runtime.Version())
	imports := map[string]bool{}
	files := token.NewFileSet()
	err := filepath.WalkDir(filepath.Join(root, imageSources), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%s %d\n%s", filepath.Base(filepath.Dir(path)), len(b), b)
		f, err := parser.ParseFile(files, path, b, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, i := range f.Imports {
			if p, err := strconv.Unquote(i.Path.Value); err == nil {
				imports[p] = true
			}
		}
		return nil
	})
	mod, merr := os.ReadFile(filepath.Join(root, "go.mod"))
	if err = errors.Join(err, merr); err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mod)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		for i := range imports {
			if i == f[0] || strings.HasPrefix(i, f[0]+"/") {
				fmt.Fprintln(h, f[0], f[1])
				break
			}
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:6]), nil
}
