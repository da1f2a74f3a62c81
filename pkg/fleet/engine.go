package fleet

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"clocker.io/clocker/pkg/engine"
)

// file is one file that is put into a container.
type file struct {
	data []byte
	mode fs.FileMode
}

// inspect returns a container by name or id; nil when there is none.
func inspect(ctx context.Context, e *client.Client, name string) (*container.InspectResponse, error) {
	r, err := e.ContainerInspect(ctx, name, client.ContainerInspectOptions{})
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("inspect container %s: %w", name, err)
	}
	return &r.Container, nil
}

// label returns a label of a container that may be nil.
func label(c *container.InspectResponse, key string) string {
	if c == nil || c.Config == nil {
		return ""
	}
	return c.Config.Labels[key]
}

// removeContainer stops and removes a container; none is no error.
func removeContainer(ctx context.Context, e *client.Client, name string) (removed bool, err error) {
	_, err = e.ContainerRemove(ctx, name, client.ContainerRemoveOptions{Force: true})
	switch {
	case errdefs.IsNotFound(err):
		return false, nil
	case errdefs.IsConflict(err) && strings.Contains(err.Error(), "already in progress"):
		return true, awaitGone(ctx, e, name)
	case err != nil:
		return false, fmt.Errorf("remove container %s: %w", name, err)
	}
	return true, nil
}

// awaitGone waits until somebody else's removal of a container is through.
func awaitGone(ctx context.Context, e *client.Client, name string) error {
	w := e.ContainerWait(ctx, name, client.ContainerWaitOptions{Condition: container.WaitConditionRemoved})
	select {
	case <-w.Result:
		return nil
	case err := <-w.Error:
		if errdefs.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("wait for container %s to go: %w", name, err)
	}
}

// stopContainer lets a container end by itself before it is removed.
func stopContainer(ctx context.Context, e *client.Client, name string, seconds int) error {
	_, err := e.ContainerStop(ctx, name, client.ContainerStopOptions{Timeout: &seconds})
	if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsNotModified(err) {
		return fmt.Errorf("stop container %s: %w", name, err)
	}
	return nil
}

// probe is a short-lived container of our image.
type probe struct {
	image  string
	args   []string
	caps   []string
	mounts []mount.Mount
	binds  []string
	labels map[string]string
	// restart says what the engine does when it ends; nothing by default.
	restart container.RestartPolicy
}

func (p probe) create(ctx context.Context, e *client.Client) (string, error) {
	labels := map[string]string{LabelSystem: SystemProbe}
	maps.Copy(labels, p.labels)
	r, err := e.ContainerCreate(ctx, client.ContainerCreateOptions{
		Name: "clocker-probe-" + randomName(),
		Config: &container.Config{
			Image: p.image, Entrypoint: []string{"/docker-clocker"}, Cmd: p.args, Labels: labels,
		},
		HostConfig: &container.HostConfig{
			NetworkMode: "host", UsernsMode: "host", ReadonlyRootfs: true,
			CapDrop: []string{"ALL"}, CapAdd: p.caps, SecurityOpt: []string{"label=disable"},
			Mounts: p.mounts, Binds: p.binds, RestartPolicy: p.restart,
			LogConfig: container.LogConfig{Type: "json-file"},
		},
	})
	if err != nil {
		return "", fmt.Errorf("create container: %w", err)
	}
	return r.ID, nil
}

// run starts the container, waits for its end and returns what it wrote to
// its output. A container that fails gives an error with what it wrote to its
// error output.
func (p probe) run(ctx context.Context, e *client.Client) ([]byte, error) {
	id, err := p.create(ctx, e)
	if err != nil {
		return nil, err
	}
	defer discard(ctx, e, id)
	w := e.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
	if _, err := e.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
		return nil, fmt.Errorf("start container: %w", err)
	}
	var code int64
	select {
	case r := <-w.Result:
		code = r.StatusCode
	case err := <-w.Error:
		return nil, fmt.Errorf("wait for container: %w", err)
	}
	out, errOut, err := logs(ctx, e, id, "all")
	if err != nil {
		return nil, err
	}
	if code != 0 {
		return nil, fmt.Errorf("%s ended with code %d: %s", strings.Join(p.args, " "), code, strings.TrimSpace(string(errOut)))
	}
	return out, nil
}

// discard removes a container that has served, also when ctx has ended.
func discard(ctx context.Context, e *client.Client, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	_, _ = removeContainer(ctx, e, id) // sweep takes what is left
}

func logs(ctx context.Context, e *client.Client, id, tail string) (out, errOut []byte, err error) {
	r, err := e.ContainerLogs(ctx, id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: tail})
	if err != nil {
		return nil, nil, fmt.Errorf("read container's output: %w", err)
	}
	defer func() { _ = r.Close() }() // read only
	var o, w bytes.Buffer
	if _, err := stdcopy.StdCopy(&o, &w, r); err != nil {
		return nil, nil, fmt.Errorf("read container's output: %w", err)
	}
	return o.Bytes(), w.Bytes(), nil
}

// sweepAge is how old a probe must be to count as left behind.
const sweepAge = 2 * time.Minute

// sweep removes probes that interrupted actions left.
func sweep(ctx context.Context, e *client.Client, now time.Time, all bool) error {
	l, err := e.ContainerList(ctx, client.ContainerListOptions{
		All: true, Filters: make(client.Filters).Add("label", LabelSystem+"="+SystemProbe),
	})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	if all {
		shells, err := e.ContainerList(ctx, client.ContainerListOptions{
			All: true, Filters: make(client.Filters).Add("label", LabelSystem+"="+engine.SystemShell),
		})
		if err != nil {
			return fmt.Errorf("list containers: %w", err)
		}
		l.Items = append(l.Items, shells.Items...)
	}
	for _, c := range l.Items {
		if all || now.Sub(time.Unix(c.Created, 0)) > sweepAge {
			if _, err := removeContainer(ctx, e, c.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// archive makes a tar of files with absolute paths.
func archive(files map[string]file, at time.Time) (io.Reader, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f := files[name]
		h := &tar.Header{
			Typeflag: tar.TypeReg, Name: strings.TrimPrefix(path.Clean(name), "/"),
			Mode: int64(f.mode.Perm()), Size: int64(len(f.data)), ModTime: at,
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("pack files: %w", err)
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, fmt.Errorf("pack files: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack files: %w", err)
	}
	return &buf, nil
}

// put writes files below a directory of a container, which need not run. The
// directory must be there and lie in a writable mount.
func put(ctx context.Context, e *client.Client, id, dir string, files map[string]file, at time.Time) error {
	content, err := archive(files, at)
	if err != nil {
		return err
	}
	if _, err := e.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: dir, Content: content}); err != nil {
		return fmt.Errorf("write files to %s: %w", dir, err)
	}
	return nil
}

// get reads one file of a container, which need not run; the error matches
// fs.ErrNotExist when there is none.
func get(ctx context.Context, e *client.Client, id, name string) ([]byte, error) {
	r, err := e.CopyFromContainer(ctx, id, client.CopyFromContainerOptions{SourcePath: name})
	if errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("read %s: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	defer func() { _ = r.Content.Close() }() // read only
	t := tar.NewReader(r.Content)
	h, err := t.Next()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if h.Typeflag != tar.TypeReg {
		return nil, fmt.Errorf("read %s: %w", name, errors.New("not a file"))
	}
	b, err := io.ReadAll(io.LimitReader(t, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

// lastWords are the last lines of a container's output, for error messages.
func lastWords(ctx context.Context, e *client.Client, id string) string {
	out, errOut, err := logs(ctx, e, id, "5")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(errOut) + string(out))
}

func randomName() string {
	var b [5]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}
