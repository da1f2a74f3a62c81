package archtest

import (
	"go/ast"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// pure are the packages that decide: a snapshot in, a decision and its reasons
// out. Those not there yet are named so that they are held from their first
// day.
var pure = []string{
	"pkg/model", "pkg/record", "pkg/links", "pkg/plan", "pkg/placement", "pkg/headroom", "pkg/policy", "pkg/hostview", "pkg/trace",
	"ipam", "ipam/audit", "pkg/finding", "pkg/strategy", "pkg/placement/lint", "pkg/rebalance",
}

// pureStd is what a pure package may import of the standard library.
var pureStd = []string{
	"bytes", "cmp", "container/heap", "container/list", "crypto/sha256", "encoding", "encoding/base32",
	"encoding/base64", "encoding/binary", "encoding/hex", "encoding/json", "errors", "fmt", "hash", "hash/crc32",
	"hash/fnv", "iter", "maps", "math", "math/big", "math/bits", "net/netip", "path", "reflect", "regexp", "slices",
	"sort", "strconv", "strings", "text/template", "time", "unicode", "unicode/utf8",
}

// pureOther is what a pure package may import beside it.
var pureOther = []string{"github.com/agnivade/levenshtein", "github.com/distribution/reference", "github.com/docker/go-units", "github.com/opencontainers/go-digest"}

// pureParts are the files that decide within packages that also act. They are
// held like pure packages.
var pureParts = map[string][]string{
	"netplugin/control":         {"verdict.go"},
	"netplugin/driver":          {"fleet.go"},
	"netplugin/lb":              {"arrange.go", "decide.go", "state.go"},
	"netplugin/policy":          {"ruleset.go", "state.go"},
	"netplugin/segment/bridged": {"ruleset.go"},
	"netplugin/segment/routed":  {"plan.go"},
	"pkg/agent":                 {"decide.go", "keep.go", "observe.go"},
	"pkg/controller":            {"healthdecide.go", "membersdecide.go"},
	"pkg/location":              {"step.go"},
}

// vocabulary is what a file of pureParts may name of a package that is not
// pure: its types and constants, and nothing that does anything. A package
// that is pure as a whole may not import one at all.
var vocabulary = []string{"pkg/engine", "pkg/hostconfig", "netplugin/policy", "netplugin/segment", "netplugin/topology"}

// pureFunctions are functions beside that which do nothing either.
var pureFunctions = []string{"netplugin/segment.LinkName"}

// builders are packages whose functions make plain data, which may be called,
// and one type that acts, which may not be named.
var builders = map[string]string{"netplugin/nft": "Connection"}

// pureFiles are the files of a package that are held: all, some or none.
func pureFiles(t *testing.T, p *pkg) []string {
	t.Helper()
	if slices.Contains(pure, p.rel()) {
		return p.files()
	}
	for _, name := range pureParts[p.rel()] {
		if !slices.Contains(p.GoFiles, name) {
			t.Errorf("%s has no %s: name the file that decides there now", p.rel(), name)
		}
	}
	return slices.DeleteFunc(p.files(), func(f string) bool {
		return !slices.Contains(pureParts[p.rel()], filepath.Base(f))
	})
}

func TestPurePackagesDoNoIO(t *testing.T) {
	ps := packages(t)
	words := make(map[string]map[string]bool)
	for _, p := range ps {
		if slices.Contains(vocabulary, p.rel()) {
			words[p.rel()] = declared(t, p)
		}
		if acts, ok := builders[p.rel()]; ok {
			words[p.rel()] = built(t, p, acts)
		}
	}
	held := 0
	for _, p := range ps {
		whole := slices.Contains(pure, p.rel())
		if whole {
			held++
		}
		for _, path := range pureFiles(t, p) {
			f := parse(t, path)
			for _, im := range f.Imports {
				name := strings.Trim(im.Path.Value, `"`)
				rel, ours := inModule(name)
				switch {
				case ours && !slices.Contains(pure, rel) && (whole || words[rel] == nil):
					t.Errorf("%s imports %s: a pure package imports one that is not", path, rel)
				case !ours && !slices.Contains(pureStd, name) && !slices.Contains(pureOther, name):
					t.Errorf("%s imports %s: not among what a pure package may import", path, name)
				}
			}
			for _, use := range uses(f, func(im, name string) bool {
				rel, ours := inModule(im)
				return ours && words[rel] != nil && !words[rel][name] && !slices.Contains(pureFunctions, rel+"."+name)
			}) {
				t.Errorf("%s: a pure package names types and constants of that package only", use)
			}
		}
	}
	if held < 3 {
		t.Errorf("only %d pure packages found of %v", held, pure)
	}
}

// built are the names of a package that makes data, but for the type that acts.
func built(t *testing.T, p *pkg, acts string) map[string]bool {
	t.Helper()
	names := declared(t, p)
	for _, path := range p.files() {
		for _, d := range parse(t, path).Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				names[d.Name.Name] = names[d.Name.Name] || d.Recv == nil
			case *ast.GenDecl:
				for _, s := range d.Specs {
					if v, ok := s.(*ast.ValueSpec); ok {
						for _, n := range v.Names {
							names[n.Name] = true
						}
					}
				}
			}
		}
	}
	if !names[acts] {
		t.Fatalf("%s has no type %s: name the one that acts there now", p.rel(), acts)
	}
	delete(names, acts)
	return names
}

// declared are the types and constants of a package.
func declared(t *testing.T, p *pkg) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	for _, path := range p.files() {
		for _, d := range parse(t, path).Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.TYPE && g.Tok != token.CONST {
				continue
			}
			for _, s := range g.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					names[s.Name.Name] = true
				case *ast.ValueSpec:
					for _, n := range s.Names {
						names[n.Name] = true
					}
				}
			}
		}
	}
	if len(names) == 0 {
		t.Fatalf("no type or constant found in %s", p.rel())
	}
	return names
}

func TestPurePackagesHaveNoClock(t *testing.T) {
	clock := []string{"Now", "Since", "Until", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "Sleep"}
	for _, p := range packages(t) {
		for _, path := range pureFiles(t, p) {
			for _, use := range uses(parse(t, path), func(im, name string) bool {
				return im == "time" && slices.Contains(clock, name)
			}) {
				t.Errorf("%s: a pure package is told the time", use)
			}
		}
	}
}

// arrows say which directories must not be reached from which, over any number
// of imports. Arrows run down only: faces, then loops, then pure, then model.
var arrows = []struct {
	from string
	not  []string
	why  string
}{
	{"netplugin", []string{"pkg/controller", "pkg/agent", "pkg/api", "pkg/console", "cli-plugin"}, "a plugin imports no loop and no face"},
	{"ipam", []string{"pkg/controller", "pkg/agent", "pkg/api", "pkg/console", "cli-plugin", "netplugin"}, "a plugin imports no loop and no face"},
	{"volplugin", []string{"pkg/controller", "pkg/agent", "pkg/api", "pkg/console", "cli-plugin", "netplugin", "ipam"}, "a plugin imports no loop and no face"},
	{"pkg", []string{"cli-plugin", "e2e", "examples"}, "only programs are above the packages"},
	{"pkg/agent", []string{"pkg/controller", "pkg/placement", "pkg/plan"}, "the agent carries out what was decided elsewhere"},
	{"pkg/controller", []string{"pkg/agent", "pkg/dns"}, "the controller reaches hosts through etcd and the tunnel only"},
	{"pkg/compose", []string{"pkg/controller", "pkg/agent", "pkg/api", "pkg/store"}, "a front end makes the model and nothing else"},
	{"pkg/blueprint", []string{"pkg/controller", "pkg/agent", "pkg/api", "pkg/store"}, "a front end makes the model and nothing else"},
	{"pkg/store", []string{"pkg/controller", "pkg/agent", "pkg/api", "pkg/plan", "pkg/placement"}, "the store decides nothing"},
	{"pkg/model", []string{"pkg/store", "pkg/api", "pkg/compose", "pkg/blueprint"}, "everything stands on the model"},
	{"e2e/testbed", []string{"pkg", "cli-plugin", "netplugin", "ipam", "volplugin"}, "the testbed knows Docker hosts, not Clocker"},
}

func TestArrowsRunDownOnly(t *testing.T) {
	ps := packages(t)
	for _, a := range arrows {
		for _, p := range under(ps, a.from) {
			for dep, chain := range closure(ps, p) {
				for _, not := range a.not {
					if isUnder(dep.rel(), not) && !isUnder(dep.rel(), a.from) {
						t.Errorf("%s: %s", chain, a.why)
					}
				}
			}
		}
	}
}

// The command layer turns flags into calls of the API. The one file that makes
// a controller out of the program may know etcd.
func TestOnlyServeKnowsEtcd(t *testing.T) {
	for _, p := range under(packages(t), "cli-plugin") {
		for _, path := range p.files() {
			if strings.HasPrefix(filepath.Base(path), "serve") || isUnder(p.rel(), "cli-plugin/serve") {
				continue
			}
			for _, im := range parse(t, path).Imports {
				if strings.HasPrefix(im.Path.Value, `"go.etcd.io/`) {
					t.Errorf("%s imports %s: the command layer calls the API", path, im.Path.Value)
				}
			}
		}
	}
}
