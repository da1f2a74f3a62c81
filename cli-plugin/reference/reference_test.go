package reference

import (
	"os"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"
)

const dir = "../../docs/reference"

func TestTheReferenceIsWhatTheCommandsSay(t *testing.T) {
	pages := Pages()
	for name, want := range pages {
		got, err := os.ReadFile(filepath.Join(dir, name))
		assert.NilError(t, err, "run go generate ./cli-plugin/...")
		assert.Equal(t, string(got), want, "%s has drifted: run go generate ./cli-plugin/...", name)
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.md"))
	assert.NilError(t, err)
	for _, f := range found {
		_, ok := pages[filepath.Base(f)]
		assert.Assert(t, ok, "%s is of no command: run go generate ./cli-plugin/...", f)
	}
}
