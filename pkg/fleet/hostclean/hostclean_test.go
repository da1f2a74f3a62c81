package hostclean

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

// machine lays out a machine's directories with our files in them and others'
// beside.
func machine(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, f := range []string{
		"etc/clocker/host.json", "etc/clocker/deep/er/file", "etc/passwd",
		"var/lib/clocker/journal", "var/lib/docker/x",
		"run/clocker/agent.sock", "run/docker/plugins/clocker.sock", "run/docker/plugins/other.sock",
	} {
		assert.NilError(t, os.MkdirAll(filepath.Join(root, filepath.Dir(f)), 0o755))
		assert.NilError(t, os.WriteFile(filepath.Join(root, f), nil, 0o600))
	}
	return root
}

func there(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	assert.Assert(t, err == nil || errors.Is(err, os.ErrNotExist), "%v", err)
	return err == nil
}

func TestOurFilesGoAndOthersStay(t *testing.T) {
	root := machine(t)
	gone, err := RemovePaths(root, root)
	assert.NilError(t, err)
	assert.DeepEqual(t, gone, []string{"/etc/clocker", "/var/lib/clocker", "/run/clocker", socket})
	for _, d := range Directories {
		assert.Assert(t, !there(t, filepath.Join(root, d)), d)
	}
	for _, f := range []string{"etc/passwd", "var/lib/docker/x", "run/docker/plugins/other.sock"} {
		assert.Assert(t, there(t, filepath.Join(root, f)), f)
	}
}

func TestADirectoryThatIsAMountIsEmptiedAndStays(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root, to mount")
	}
	root, content := machine(t), t.TempDir()
	for _, d := range Directories {
		assert.NilError(t, os.MkdirAll(filepath.Join(content, d), 0o755))
	}
	// From within, /var/lib/clocker is another directory than the one below
	// its parent: a mount covers it.
	covered := filepath.Join(content, "/var/lib/clocker")
	assert.NilError(t, os.WriteFile(filepath.Join(covered, "journal"), nil, 0o600))
	for _, d := range []string{"/etc/clocker", "/run/clocker"} {
		assert.NilError(t, unix.Mount(filepath.Join(root, d), filepath.Join(content, d), "", unix.MS_BIND, ""))
		defer func() { assert.NilError(t, unix.Unmount(filepath.Join(content, d), unix.MNT_DETACH)) }()
	}
	_, err := RemovePaths(root, content)
	assert.NilError(t, err)
	assert.Assert(t, there(t, filepath.Join(root, "/var/lib/clocker")))
	assert.Assert(t, !there(t, filepath.Join(covered, "journal")))
	assert.Assert(t, !there(t, filepath.Join(root, "/etc/clocker")))
}

func TestAFailureOfOnePartKeepsNothingElseFromBeingDone(t *testing.T) {
	var out bytes.Buffer
	root := machine(t)
	err := run(context.Background(), &out, parts{
		kernel: func(context.Context) ([]string, error) {
			return []string{"table inet clocker"}, errors.New("a link is busy")
		},
		paths: func() ([]string, error) { return RemovePaths(root, root) },
	})
	assert.ErrorContains(t, err, "a link is busy")
	var r Report
	assert.NilError(t, json.Unmarshal(out.Bytes(), &r))
	assert.DeepEqual(t, r.Kernel, []string{"table inet clocker"})
	assert.Equal(t, len(r.Paths), 4)
	assert.Assert(t, !there(t, filepath.Join(root, "etc/clocker")))
}
