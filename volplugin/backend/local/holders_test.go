package local

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/volplugin/backend"
)

// hold mounts a directory in a mount namespace of its own, as a container
// does, until the returned function is called.
func hold(t *testing.T, dir string) (release func()) {
	t.Helper()
	at := t.TempDir()
	cmd := exec.Command("sh", "-c", `mount --bind "$1" "$2" && echo held && read -r _`, "sh", dir, at)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	assert.NilError(t, err)
	out, err := cmd.StdoutPipe()
	assert.NilError(t, err)
	assert.NilError(t, cmd.Start())
	release = func() {
		_ = in.Close()
		_ = cmd.Wait()
	}
	t.Cleanup(release)
	line, err := bufio.NewReader(out).ReadString('\n')
	assert.NilError(t, err)
	assert.Equal(t, line, "held\n")
	return release
}

func TestHolders(t *testing.T) {
	real, ctx := t.TempDir(), t.Context()
	root := filepath.Join(t.TempDir(), "link")
	assert.NilError(t, os.Symlink(real, root))
	b := open(t, root)
	v, other := backend.Volume{ID: "1", Name: "data"}, backend.Volume{ID: "11", Name: "other"}
	assert.NilError(t, b.Create(ctx, v))
	assert.NilError(t, b.Create(ctx, other))
	holders := func(v backend.Volume) int {
		t.Helper()
		n, err := b.Holders(ctx, v)
		assert.NilError(t, err)
		return n
	}
	assert.Equal(t, holders(v), 0)
	one := hold(t, b.Path(v))
	part := filepath.Join(b.Path(v), "part")
	assert.NilError(t, os.Mkdir(part, 0o700))
	two := hold(t, part)
	assert.Equal(t, holders(v), 2)
	assert.Equal(t, holders(other), 0)
	one()
	assert.Equal(t, holders(v), 1)
	two()
	assert.Equal(t, holders(v), 0)
}

// What somebody mounted within a volume is not the volume's to delete.
func TestForeignMountIsNotDeleted(t *testing.T) {
	ctx := t.Context()
	b, v := open(t, t.TempDir()), backend.Volume{ID: "1", Name: "data"}
	assert.NilError(t, b.Create(ctx, v))
	foreign, at := t.TempDir(), filepath.Join(b.Path(v), "at")
	assert.NilError(t, os.WriteFile(filepath.Join(foreign, "f"), []byte("precious"), 0o600))
	assert.NilError(t, os.Mkdir(at, 0o700))
	assert.NilError(t, syscall.Mount(foreign, at, "", syscall.MS_BIND, ""))
	removed := filepath.Join(b.root, "removed", v.ID, "content", "at")
	t.Cleanup(func() {
		for _, path := range []string{at, removed} {
			_ = syscall.Unmount(path, syscall.MNT_DETACH)
		}
	})
	n, err := b.Holders(ctx, v)
	assert.NilError(t, err)
	assert.Assert(t, n > 0)

	assert.NilError(t, b.Remove(ctx, v))
	b.Close()
	_, err = os.Stat(filepath.Join(foreign, "f"))
	assert.NilError(t, err)
	assert.NilError(t, syscall.Unmount(removed, 0))
	open(t, b.root).Close()
	_, err = os.Stat(filepath.Join(b.root, "removed", v.ID))
	assert.ErrorIs(t, err, os.ErrNotExist)
}
