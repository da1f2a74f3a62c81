package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// built is an image with the names it is pushed under.
type built struct {
	names []string
	image v1.Image
}

// makeImages fills a registry's directory with all recipes' images unless the
// cache has it, and returns where it is. It makes the trees they come from.
func makeImages(ctx context.Context, log func(string, ...any), trees *imageTrees) (string, error) {
	if err := trees.make(ctx, log); err != nil {
		return "", err
	}
	root, err := moduleRoot()
	if err != nil {
		return "", fmt.Errorf("find sources of images: %w", err)
	}
	key, err := imagesKey(root, *trees)
	if err != nil {
		return "", fmt.Errorf("make images: %w", err)
	}
	at := filepath.Join(cacheDir(), "images-"+key)
	if exists(at) {
		return at, nil
	}
	unlock, err := lockFile(filepath.Join(cacheDir(), "images.lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if exists(at) {
		return at, nil
	}
	began := time.Now()
	images, err := buildImages(ctx, root, *trees)
	if err != nil {
		return "", err
	}
	err = buildInto(at, func(tmp string) error { return fillRegistry(ctx, trees.tools, tmp, images) })
	if err != nil {
		return "", err
	}
	log("images: %d built in %.1fs", len(images), time.Since(began).Seconds())
	return at, nil
}

// refreshImages pushes the images again to a testbed that was made before
// their sources changed.
func (t *Testbed) refreshImages(ctx context.Context, c *caches) error {
	root, err := moduleRoot()
	if err != nil {
		return fmt.Errorf("find sources of images: %w", err)
	}
	images, err := buildImages(ctx, root, c.imageTrees)
	if err != nil {
		return err
	}
	if err := push(ctx, t.Registry(), nil, images); err != nil {
		return err
	}
	return t.update(func(s *state) error {
		s.Images = c.images
		return nil
	})
}

func buildImages(ctx context.Context, root string, trees imageTrees) ([]built, error) {
	bin, err := os.MkdirTemp("", "testbed-images-")
	if err != nil {
		return nil, fmt.Errorf("build images: %w", err)
	}
	defer os.RemoveAll(bin)
	if err := buildPrograms(ctx, root, bin); err != nil {
		return nil, err
	}
	applets, err := exec.CommandContext(ctx, trees.busybox(), "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list busybox applets: %w", err)
	}
	var all []built
	for _, r := range recipes {
		img, err := r.build(trees, bin, strings.Fields(string(applets)))
		if err != nil {
			return nil, fmt.Errorf("build image %s: %w", r.Names[0], err)
		}
		all = append(all, built{r.Names, img})
	}
	return all, nil
}

func (t imageTrees) busybox() string { return filepath.Join(t.shell, "usr/bin/busybox") }

// buildPrograms compiles the recipes' Go programs, static, into bin.
func buildPrograms(ctx context.Context, root, bin string) error {
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", bin + "/"}
	for _, r := range recipes {
		if r.Program != "" {
			args = append(args, "./"+filepath.Join(imageSources, r.Program))
		}
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build programs of images: %w: %s", err, lastLines(out, 10))
	}
	return nil
}

func (r recipe) build(trees imageTrees, bin string, applets []string) (v1.Image, error) {
	d := newDistillery(trees.tools)
	for _, dir := range append([]string{"/tmp"}, r.Dirs...) {
		d.addDir(dir, 0o1777)
	}
	d.addDir("/run", 0o755)
	d.addText("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n", 0o644)
	d.addText("/etc/group", "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n", 0o644)
	for _, p := range r.Paths {
		if err := d.add(p); err != nil {
			return nil, err
		}
	}
	if r.Shell {
		if err := d.addProgram(trees.busybox(), "/bin/busybox"); err != nil {
			return nil, err
		}
		for _, a := range applets {
			if _, ok := d.have["/bin/"+a]; !ok {
				d.addLink("/bin/"+a, "busybox")
			}
		}
	}
	if r.Program != "" {
		if err := d.addProgram(filepath.Join(bin, r.Program), "/"+r.Program); err != nil {
			return nil, err
		}
	}
	for _, f := range r.Files {
		d.addText(f.Path, f.Text, f.Mode)
	}
	layer, err := d.pack()
	if err != nil {
		return nil, err
	}
	return assemble(layer, r)
}

// assemble makes an image of one layer with the recipe's settings.
func assemble(layer []byte, r recipe) (v1.Image, error) {
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(layer)), nil
	}, tarball.WithCompressionLevel(1), tarball.WithCompressedCaching)
	if err != nil {
		return nil, fmt.Errorf("make layer: %w", err)
	}
	img, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		return nil, fmt.Errorf("make image: %w", err)
	}
	c := v1.Config{
		Env:        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Entrypoint: r.Entrypoint, Cmd: r.Cmd, WorkingDir: r.WorkingDir, StopSignal: r.StopSignal,
		ExposedPorts: set(r.Ports), Volumes: set(r.Volumes),
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("make image: %w", err)
	}
	file = file.DeepCopy()
	file.Config, file.Architecture, file.OS = c, runtime.GOARCH, "linux"
	return mutate.ConfigFile(img, file)
}

func set(names []string) map[string]struct{} {
	if len(names) == 0 {
		return nil
	}
	m := map[string]struct{}{}
	for _, n := range names {
		m[n] = struct{}{}
	}
	return m
}

// PushProgram puts an image into the testbed's registry that holds one static
// program and runs it. The name is as the hosts' engines will ask for it,
// without the registry: "team/name:tag" for docker.io/team/name:tag (and
// clocker.io/team/name:tag, which is the same registry here).
func (t *Testbed) PushProgram(ctx context.Context, name, program string) error {
	d := newDistillery("/")
	at := "/" + filepath.Base(program)
	d.addDir("/tmp", 0o1777)
	layer, err := []byte(nil), d.addProgram(program, at)
	if err == nil {
		layer, err = d.pack()
	}
	if err != nil {
		return fmt.Errorf("push %s: %w", name, err)
	}
	img, err := assemble(layer, recipe{Entrypoint: []string{at}})
	if err != nil {
		return fmt.Errorf("push %s: %w", name, err)
	}
	return push(ctx, t.Registry(), nil, []built{{[]string{name}, img}})
}

var errNoSources = errors.New("no Go module clocker.io/clocker around this program or the working directory")
