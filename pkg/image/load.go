package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
)

// Engine is the part of an engine's client that loading needs.
type Engine interface {
	ServerVersion(ctx context.Context, o client.ServerVersionOptions) (client.ServerVersionResult, error)
	ImageInspect(ctx context.Context, ref string, o ...client.ImageInspectOption) (client.ImageInspectResult, error)
	ImageLoad(ctx context.Context, in io.Reader, o ...client.ImageLoadOption) (client.ImageLoadResult, error)
	ImageRemove(ctx context.Context, ref string, o client.ImageRemoveOptions) (client.ImageRemoveResult, error)
}

// ErrArchitecture means that the engine's machines cannot run the executable.
var ErrArchitecture = errors.New("wrong architecture")

// CheckArchitecture compares the image's architecture with an engine's, as
// [client.ServerVersionResult] has it. The error matches [ErrArchitecture].
func (i *Image) CheckArchitecture(os, arch string) error {
	if os != "linux" {
		return fmt.Errorf("%w: the engine runs %s containers, not Linux ones", ErrArchitecture, os)
	}
	if arch != i.arch {
		return fmt.Errorf("%w: the engine is %s, this docker-clocker is %s: build one with GOARCH=%s and use that", ErrArchitecture, arch, i.arch, arch)
	}
	return nil
}

// Load puts the image into an engine, unless it has exactly this one. It
// returns the engine's own id of the image and whether it had to be loaded.
func (i *Image) Load(ctx context.Context, e Engine) (id string, loaded bool, err error) {
	v, err := e.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return "", false, fmt.Errorf("load image: %w", err)
	}
	if err := i.CheckArchitecture(v.Os, v.Arch); err != nil {
		return "", false, fmt.Errorf("load image: %w", err)
	}
	id, same, err := i.present(ctx, e)
	if err != nil || same {
		return id, false, err
	}
	old := id
	if err := i.send(ctx, e); err != nil {
		// The engine may have taken it all the same.
		return "", true, fmt.Errorf("load image: %w", err)
	}
	id, same, err = i.present(ctx, e)
	switch {
	case err != nil:
		return "", true, err
	case id == "":
		return "", true, fmt.Errorf("load image: the engine took %s and does not have it", i.Reference())
	case !same:
		return "", true, fmt.Errorf("load image: the engine made something else of %s", i.Reference())
	}
	if old != "" {
		// The tag has moved on. What still runs from the old image keeps it.
		_, _ = e.ImageRemove(ctx, old, client.ImageRemoveOptions{PruneChildren: true})
	}
	return id, true, nil
}

// present returns the id of the image that the engine has under our name,
// which may be empty, and whether it is this very one. An engine with the
// containerd store calls images by another digest: layer and configuration
// are compared then.
func (i *Image) present(ctx context.Context, e Engine) (id string, same bool, err error) {
	got, err := e.ImageInspect(ctx, i.Reference())
	if errdefs.IsNotFound(err) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("inspect image: %w", err)
	}
	if got.ID == i.ID() {
		return got.ID, true, nil
	}
	same = slices.Equal(got.RootFS.Layers, []string{i.layer.String()}) &&
		got.Config != nil && got.Config.Labels[Label] == i.label && slices.Equal(got.Config.Entrypoint, []string{Binary})
	return got.ID, same, nil
}

func (i *Image) send(ctx context.Context, e Engine) error {
	r, w := io.Pipe()
	written := make(chan struct{})
	go func() {
		_ = w.CloseWithError(i.Write(w)) // always nil; the reader gets the error
		close(written)
	}()
	res, err := e.ImageLoad(ctx, r, client.ImageLoadWithQuiet(true))
	_ = r.CloseWithError(errors.New("the engine stopped reading")) // always nil; ends the writer
	if err != nil {
		<-written
		return err
	}
	defer func() { _ = res.Close() }() // was read to its end
	answer, err := io.ReadAll(io.LimitReader(res, 1<<20))
	<-written // the engine's word counts: it may not read the padding at the end
	if err != nil {
		return err
	}
	return answerError(answer)
}

// answerError finds the error in the stream of JSON objects that an engine
// answers a load with.
func answerError(answer []byte) error {
	d := json.NewDecoder(bytes.NewReader(answer))
	for {
		var line struct {
			Error string `json:"error"`
		}
		if err := d.Decode(&line); err != nil {
			return nil // the end, or plain text: what was loaded is looked at next
		}
		if line.Error != "" {
			return errors.New(line.Error)
		}
	}
}
