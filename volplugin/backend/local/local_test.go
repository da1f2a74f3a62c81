package local

import (
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/volplugin/backend"
)

func open(t *testing.T, root string) *Backend {
	t.Helper()
	b, err := Open(root, slog.New(slog.DiscardHandler))
	assert.NilError(t, err)
	t.Cleanup(b.Close)
	return b
}

func TestContentStaysAndGoes(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	root, ctx := filepath.Join(t.TempDir(), "vol"), t.Context()
	b, v := open(t, root), backend.Volume{ID: "1", Name: "data"}
	assert.NilError(t, b.Create(ctx, v))
	path, err := b.Mount(ctx, v)
	assert.NilError(t, err)
	assert.Equal(t, path, b.Path(v))
	i, err := os.Stat(path)
	assert.NilError(t, err)
	assert.Equal(t, i.Mode().Perm(), os.FileMode(0o755))
	assert.NilError(t, os.WriteFile(filepath.Join(path, "f"), []byte("x"), 0o600))
	assert.NilError(t, os.Chmod(path, 0o770))
	assert.NilError(t, b.Unmount(ctx, v))

	// Created again after a crash: nothing of it changes.
	b = open(t, root)
	assert.NilError(t, b.Create(ctx, v))
	got, err := os.ReadFile(filepath.Join(path, "f"))
	assert.NilError(t, err)
	assert.Equal(t, string(got), "x")
	i, err = os.Stat(path)
	assert.NilError(t, err)
	assert.Equal(t, i.Mode().Perm(), os.FileMode(0o770))

	assert.NilError(t, b.Remove(ctx, v))
	assert.NilError(t, b.Remove(ctx, v))
	b.Close()
	for _, dir := range []string{"volumes", "removed"} {
		left, err := os.ReadDir(filepath.Join(root, dir))
		assert.NilError(t, err)
		assert.Equal(t, len(left), 0)
	}
}

func TestLostDirectoryIsAnError(t *testing.T) {
	b, v := open(t, t.TempDir()), backend.Volume{ID: "1", Name: "data"}
	_, err := b.Mount(t.Context(), v)
	assert.ErrorContains(t, err, "mount volume data: its directory")
	assert.NilError(t, b.Create(t.Context(), v))
	assert.NilError(t, os.Remove(b.Path(v)))
	assert.NilError(t, os.WriteFile(b.Path(v), nil, 0o600))
	_, err = b.Mount(t.Context(), v)
	assert.ErrorContains(t, err, "is no directory")
}

func TestDeletionGoesOnAfterAStart(t *testing.T) {
	root := t.TempDir()
	assert.NilError(t, os.MkdirAll(filepath.Join(root, "removed", "1", "content"), 0o700))
	b := open(t, root)
	b.Close()
	left, err := os.ReadDir(filepath.Join(root, "removed"))
	assert.NilError(t, err)
	assert.Equal(t, len(left), 0)
}

func TestRootMustBeAbsolute(t *testing.T) {
	_, err := Open("vol", slog.New(slog.DiscardHandler))
	assert.ErrorContains(t, err, `"vol" is not an absolute path`)
}
