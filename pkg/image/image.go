// Package image makes the image that controller and agent run from, out of
// docker-clocker's own executable and what it carries to hosts, and loads it
// into engines: FROM scratch, one layer, no registry and no build. The same
// programs make the same image, byte for byte, so an engine that has it is left
// alone.
//
// It makes no image of anything else and keeps nothing on disk.
//
// Design page: docs/design/fleet.md.
package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Repository is what the image is called, without a tag.
const Repository = "clocker.io/clocker"

// Binary is where the executable is in the image.
const Binary = "/docker-clocker"

// Label marks our images; its value is the version.
const Label = "io.clocker.version"

// directories are there to be mounted on, so that a container's root can be
// read-only.
var directories = []string{
	"config/", "data/",
	"clean/",
	"etc/", "etc/clocker/",
	"host/",
	"run/", "run/clocker/", "run/docker/", "run/docker/plugins/",
	"tmp/",
	"var/", "var/lib/", "var/lib/clocker/",
}

// Image is the image of one executable.
type Image struct {
	ref   name.Tag
	arch  string
	img   v1.Image
	id    v1.Hash   // of the configuration
	layer v1.Hash   // of the layer, uncompressed
	label string    // the version
	made  time.Time // always the epoch: the same input is the same image
}

// Program is a file that goes into an image under a name of its own.
type Program struct{ Name, Path string }

// New makes the image clocker.io/clocker:VERSION of an executable, which must
// be a static one for Linux ([ErrExecutable] otherwise). An empty path is the
// running program's own file. Companions are further programs of the same
// architecture, which lie beside the executable.
func New(path, version string, companions ...Program) (*Image, error) {
	if path == "" {
		own, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("make image: %w", err)
		}
		path = own
	}
	arch, err := Architecture(path)
	if err != nil {
		return nil, fmt.Errorf("make image: %w", err)
	}
	for _, c := range companions {
		other, err := Architecture(c.Path)
		if err != nil {
			return nil, fmt.Errorf("make image: %w", err)
		}
		if other != arch {
			return nil, fmt.Errorf("make image: %w: %s is for %s, %s for %s: build both alike", ErrArchitecture, c.Path, other, path, arch)
		}
	}
	ref, err := name.NewTag(Repository+":"+version, name.StrictValidation)
	if err != nil {
		return nil, fmt.Errorf("make image: version %q is not a tag: %w", version, err)
	}
	i := &Image{ref: ref, arch: arch, label: version, made: time.Unix(0, 0).UTC()}
	if err := i.assemble(append([]Program{{Binary[1:], path}}, companions...)); err != nil {
		return nil, fmt.Errorf("make image: %w", err)
	}
	return i, nil
}

// assemble makes the image of the programs, the executable first.
func (i *Image) assemble(programs []Program) error {
	var content bytes.Buffer
	if err := i.writeLayer(&content, programs); err != nil {
		return err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content.Bytes())), nil
	}, tarball.WithCompressionLevel(gzip.BestSpeed), tarball.WithCompressedCaching)
	if err != nil {
		return err
	}
	img, err := mutate.Append(empty.Image, mutate.Addendum{
		Layer:   layer,
		History: v1.History{Created: v1.Time{Time: i.made}, CreatedBy: "docker clocker"},
	})
	if err != nil {
		return err
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return err
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture, cf.Created = "linux", i.arch, v1.Time{Time: i.made}
	cf.Config = v1.Config{
		Entrypoint: []string{Binary},
		Labels:     map[string]string{Label: i.label},
		Env:        []string{"PATH=/"},
	}
	if i.img, err = mutate.ConfigFile(img, cf); err != nil {
		return err
	}
	if i.id, err = i.img.ConfigName(); err != nil {
		return err
	}
	i.layer, err = layer.DiffID()
	return err
}

// writeLayer writes the only layer: the directories and the programs, owned by
// root, without times.
func (i *Image) writeLayer(w io.Writer, programs []Program) error {
	tw := tar.NewWriter(w)
	for _, d := range directories {
		mode := int64(0o755)
		if d == "tmp/" {
			mode = 0o1777
		}
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: d, Mode: mode, ModTime: i.made, Format: tar.FormatPAX}); err != nil {
			return err
		}
	}
	for _, p := range programs {
		if err := i.writeProgram(tw, p); err != nil {
			return err
		}
	}
	return tw.Close()
}

func (i *Image) writeProgram(tw *tar.Writer, p Program) error {
	f, err := os.Open(p.Path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // read only
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if err := tw.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: p.Name, Mode: 0o755, Size: st.Size(), ModTime: i.made, Format: tar.FormatPAX,
	}); err != nil {
		return err
	}
	if _, err := io.Copy(tw, f); err != nil {
		return fmt.Errorf("read %s: %w", p.Path, err)
	}
	return nil
}

// Reference is the image's name with its tag.
func (i *Image) Reference() string { return i.ref.Name() }

// ID is the digest of the image's configuration, which most engines call the
// image's id.
func (i *Image) ID() string { return i.id.String() }

// Arch is the executable's architecture, as GOARCH says it.
func (i *Image) Arch() string { return i.arch }

// Write writes the image as `docker save` would.
func (i *Image) Write(w io.Writer) error {
	if err := tarball.Write(i.ref, i.img, w); err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	return nil
}

// ErrExecutable means that a file cannot be the program of the image.
var ErrExecutable = errors.New("not a static executable for Linux")
