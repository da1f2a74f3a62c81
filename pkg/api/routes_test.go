package api

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/record"
)

// patterns are the paths that this package registers, as its source has them.
func patterns(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	assert.NilError(t, err)
	pattern := regexp.MustCompile(`(?:read|lead)\("([A-Z]+ /v1/[^"]*)"`)
	var out []string
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		b, err := os.ReadFile(f)
		assert.NilError(t, err)
		for _, m := range pattern.FindAllStringSubmatch(string(b), -1) {
			out = append(out, m[1])
		}
	}
	assert.Assert(t, len(out) > 40, "%d paths", len(out))
	return out
}

// TestEveryPathHasARule: nothing is open to everybody but joining, nothing that
// changes is open to readers, and no exception is of a path that is gone.
func TestEveryPathHasARule(t *testing.T) {
	all := patterns(t)
	for p := range exceptions {
		assert.Assert(t, slices.Contains(all, p), "the rule of %s is of no path", p)
	}
	for _, p := range all {
		n := needOf(p)
		method, path, _ := strings.Cut(p, " ")
		switch n.who {
		case anyone:
			assert.Assert(t, strings.HasPrefix(path, "/v1/join/"), p)
		case members:
			assert.Equal(t, path, "/v1/renew")
		case users:
			assert.Assert(t, ranks[n.role] > 0, "%s asks for no role", p)
			assert.Assert(t, method == http.MethodGet || n.role != record.RoleRead, "%s lets readers change something", p)
			if method != http.MethodGet && n.role == record.RoleDeploy {
				assert.Assert(t, n.of != whole && (n.of != part || p == "POST /v1/applications"), "%s lets one change more than one application", p)
			}
		}
		if strings.Contains(path, "{app}") {
			assert.Equal(t, n.of, ofApp, p)
		}
		if strings.Contains(path, "{task}") {
			assert.Equal(t, n.of, ofTask, p)
		}
	}
}
