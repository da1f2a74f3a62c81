package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/moby/moby/client"
)

// EnsureImage pulls an image unless the engine has it, and reports whether it
// did. ErrImage means that no registry has it or lets us have it.
func (e *Engine) EnsureImage(ctx context.Context, ref string) (pulled bool, err error) {
	_, err = e.cli.ImageInspect(ctx, ref)
	if err == nil {
		return false, nil
	}
	if err = wrap("inspect image "+ref, err); !errors.Is(err, ErrNotFound) {
		return false, err
	}
	r, err := e.cli.ImagePull(ctx, ref, client.ImagePullOptions{})
	if err != nil {
		return false, pullError(ref, err)
	}
	defer func() { _ = r.Close() }()
	if err := r.Wait(ctx); err != nil {
		return false, pullError(ref, err)
	}
	return true, nil
}

// pullError tells an image that is nowhere from a registry that cannot be
// reached: engines give words, and not always a status, for both.
func pullError(ref string, err error) error {
	kind := kindOf(err)
	s := err.Error()
	for _, words := range []string{
		"manifest unknown", "not found", "does not exist", "access denied", "unauthorized",
		"no matching manifest", "denied:", "invalid reference format",
	} {
		if strings.Contains(s, words) {
			kind = ErrImage
			err = fmt.Errorf("%w (check the name and tag, or load the image on the host)", err)
			break
		}
	}
	return &Error{Op: "pull image " + ref, Kind: kind, err: err}
}
