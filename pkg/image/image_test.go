package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
)

// build makes a small static program.
func build(t *testing.T, source string) string {
	t.Helper()
	dir := t.TempDir()
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(source), 0o600))
	out := filepath.Join(dir, "program")
	cmd := exec.Command("go", "build", "-o", out, filepath.Join(dir, "main.go"))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	msg, err := cmd.CombinedOutput()
	assert.NilError(t, err, string(msg))
	return out
}

const idle = "package main\nfunc main() {}\n"

func TestTheSameExecutableMakesTheSameImage(t *testing.T) {
	exe := build(t, idle)
	a, err := New(exe, "1.2.3")
	assert.NilError(t, err)
	copied := filepath.Join(t.TempDir(), "another-name")
	content, err := os.ReadFile(exe)
	assert.NilError(t, err)
	assert.NilError(t, os.WriteFile(copied, content, 0o700))
	b, err := New(copied, "1.2.3")
	assert.NilError(t, err)
	assert.Equal(t, a.ID(), b.ID())
	assert.Equal(t, a.Reference(), "clocker.io/clocker:1.2.3")
	assert.Equal(t, a.Arch(), runtime.GOARCH)
	var x, y bytes.Buffer
	assert.NilError(t, a.Write(&x))
	assert.NilError(t, b.Write(&y))
	assert.Assert(t, bytes.Equal(x.Bytes(), y.Bytes()))

	c, err := New(exe, "1.2.4")
	assert.NilError(t, err)
	assert.Assert(t, c.ID() != a.ID(), "another version is another image")
}

func TestImageHoldsTheExecutableAndPlacesToMountOn(t *testing.T) {
	exe := build(t, idle)
	img, err := New(exe, "1")
	assert.NilError(t, err)
	var out bytes.Buffer
	assert.NilError(t, img.Write(&out))
	files := map[string][]byte{}
	for r := tar.NewReader(&out); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		assert.NilError(t, err)
		files[h.Name], err = io.ReadAll(r)
		assert.NilError(t, err)
	}
	var manifest []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	assert.NilError(t, json.Unmarshal(files["manifest.json"], &manifest))
	assert.Equal(t, len(manifest), 1)
	assert.DeepEqual(t, manifest[0].RepoTags, []string{"clocker.io/clocker:1"})
	assert.Equal(t, len(manifest[0].Layers), 1)
	z, err := gzip.NewReader(bytes.NewReader(files[manifest[0].Layers[0]]))
	assert.NilError(t, err)
	want, err := os.ReadFile(exe)
	assert.NilError(t, err)
	seen := map[string]bool{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		assert.NilError(t, err)
		assert.Equal(t, h.Uid+h.Gid, 0)
		seen[h.Name] = true
		if h.Name == "docker-clocker" {
			got, err := io.ReadAll(r)
			assert.NilError(t, err)
			assert.Assert(t, bytes.Equal(got, want))
			assert.Equal(t, h.FileInfo().Mode().Perm(), os.FileMode(0o755))
		}
	}
	for _, name := range []string{"docker-clocker", "etc/clocker/", "var/lib/clocker/", "run/docker/plugins/", "data/", "config/", "clean/"} {
		assert.Assert(t, seen[name], name)
	}
}

func TestCompanionsLieBesideTheExecutable(t *testing.T) {
	exe := build(t, idle)
	plain, err := New(exe, "1")
	assert.NilError(t, err)
	with, err := New(exe, "1", Program{Name: "other", Path: build(t, "package main\nfunc main() { println() }\n")})
	assert.NilError(t, err)
	assert.Assert(t, plain.ID() != with.ID())
	layers, err := with.img.Layers()
	assert.NilError(t, err)
	r, err := layers[0].Uncompressed()
	assert.NilError(t, err)
	names := map[string]bool{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		assert.NilError(t, err)
		names[h.Name] = h.Mode == 0o755
	}
	assert.Assert(t, names["docker-clocker"] && names["other"])
	_, err = New(exe, "1", Program{Name: "other", Path: filepath.Join(t.TempDir(), "none")})
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func TestOnlyAStaticLinuxExecutableBecomesAnImage(t *testing.T) {
	write := func(name string, content []byte) string {
		path := filepath.Join(t.TempDir(), name)
		assert.NilError(t, os.WriteFile(path, content, 0o700))
		return path
	}
	exe, err := os.ReadFile(build(t, idle))
	assert.NilError(t, err)
	alien := bytes.Clone(exe)
	alien[elf.EI_OSABI] = byte(elf.ELFOSABI_FREEBSD)
	for name, tc := range map[string]struct{ path, want string }{
		"a script":   {write("text", []byte("#!/bin/sh\n")), "no ELF file"},
		"another OS": {write("alien", alien), "another operating system"},
		"cut off":    {write("half", exe[:40]), "no ELF file"},
		"dynamic":    {"/bin/ls", "libraries of this machine"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(tc.path, "1")
			assert.ErrorIs(t, err, ErrExecutable)
			assert.ErrorContains(t, err, tc.want)
			assert.ErrorContains(t, err, "CGO_ENABLED=0")
		})
	}
	_, err = New(filepath.Join(t.TempDir(), "none"), "1")
	assert.ErrorIs(t, err, os.ErrNotExist)
	_, err = New(write("good", exe), "not a tag")
	assert.ErrorContains(t, err, "not a tag")
}

// engine is an engine's store of images, for what the real ones are not easily
// made to do: other architectures, refusals, the digests of another store.
type engine struct {
	arch   string
	images map[string]imagetypes.InspectResponse
	// digest renames what is loaded; answer is what a load is answered with.
	digest, answer string
	loads          int
	removed        []string
}

func (e *engine) ServerVersion(context.Context, client.ServerVersionOptions) (client.ServerVersionResult, error) {
	return client.ServerVersionResult{Os: "linux", Arch: e.arch}, nil
}

func (e *engine) ImageInspect(_ context.Context, ref string, _ ...client.ImageInspectOption) (client.ImageInspectResult, error) {
	i, ok := e.images[ref]
	if !ok {
		return client.ImageInspectResult{}, errdefs.ErrNotFound
	}
	return client.ImageInspectResult{InspectResponse: i}, nil
}

func (e *engine) ImageRemove(_ context.Context, ref string, _ client.ImageRemoveOptions) (client.ImageRemoveResult, error) {
	e.removed = append(e.removed, ref)
	return client.ImageRemoveResult{}, nil
}

type answer struct{ io.Reader }

func (answer) Close() error { return nil }

func (e *engine) ImageLoad(_ context.Context, in io.Reader, _ ...client.ImageLoadOption) (client.ImageLoadResult, error) {
	e.loads++
	var tag, config string
	var layer struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	var cfg ocispec.Image
	for r := tar.NewReader(in); ; {
		h, err := r.Next()
		if err != nil {
			break
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		switch {
		case h.Name == "manifest.json":
			var m []struct {
				Config   string
				RepoTags []string
			}
			if err := json.Unmarshal(b, &m); err != nil {
				return nil, err
			}
			tag, config = m[0].RepoTags[0], m[0].Config
		case strings.HasPrefix(h.Name, "sha256:"):
			_ = json.Unmarshal(b, &cfg)   // the layer is none
			_ = json.Unmarshal(b, &layer) // as above
			config = h.Name
		}
	}
	if strings.Contains(e.answer, "error") {
		return answer{strings.NewReader(e.answer)}, nil
	}
	id := config
	if e.digest != "" {
		id = e.digest
	}
	e.images[tag] = imagetypes.InspectResponse{
		ID: id, RootFS: imagetypes.RootFS{Layers: layer.RootFS.DiffIDs},
		Config: &dockerspec.DockerOCIImageConfig{ImageConfig: ocispec.ImageConfig{Labels: cfg.Config.Labels, Entrypoint: cfg.Config.Entrypoint}},
	}
	return answer{strings.NewReader(e.answer)}, nil
}

func TestAnImageIsLoadedOnce(t *testing.T) {
	img, err := New(build(t, idle), "1")
	assert.NilError(t, err)
	for name, e := range map[string]*engine{
		"classic store":    {arch: runtime.GOARCH},
		"containerd store": {arch: runtime.GOARCH, digest: "sha256:of-the-manifest"},
	} {
		t.Run(name, func(t *testing.T) {
			e.images = map[string]imagetypes.InspectResponse{}
			id, loaded, err := img.Load(t.Context(), e)
			assert.NilError(t, err)
			assert.Assert(t, loaded)
			again, loaded, err := img.Load(t.Context(), e)
			assert.NilError(t, err)
			assert.Assert(t, !loaded)
			assert.Equal(t, again, id)
			assert.Equal(t, e.loads, 1)

			next, err := New(build(t, "package main\nfunc main() { println() }\n"), "1")
			assert.NilError(t, err)
			if e.digest != "" {
				e.digest += "-2"
			}
			_, loaded, err = next.Load(t.Context(), e)
			assert.NilError(t, err)
			assert.Assert(t, loaded, "another executable under the same tag is loaded")
			assert.DeepEqual(t, e.removed, []string{id})
		})
	}
}

func TestALoadThatGoesWrongSaysWhy(t *testing.T) {
	img, err := New(build(t, idle), "1")
	assert.NilError(t, err)
	_, _, err = img.Load(t.Context(), &engine{arch: "mips64le"})
	assert.ErrorIs(t, err, ErrArchitecture)
	assert.ErrorContains(t, err, "GOARCH=mips64le")
	_, loaded, err := img.Load(t.Context(), &engine{
		arch: runtime.GOARCH, images: map[string]imagetypes.InspectResponse{},
		answer: "{\"stream\":\"x\"}\n{\"error\":\"no space left on device\"}\n",
	})
	assert.ErrorContains(t, err, "no space left on device")
	assert.Assert(t, loaded, "what may be there must be taken back")
}
