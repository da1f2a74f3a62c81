package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// EnsureImage pulls an image unless the engine has it, and reports whether it
// did. on is the platform that it must be for, "os/arch[/variant]"; empty means
// the engine's own. ErrImage means that no registry has it or lets us have it.
func (e *Engine) EnsureImage(ctx context.Context, ref, on string) (pulled bool, err error) {
	want, err := platform(on)
	if err != nil {
		return false, &Error{Op: "pull image " + ref, Kind: ErrInvalid, err: err}
	}
	have, err := e.cli.ImageInspect(ctx, ref)
	if err == nil && (want == nil || have.Os == want.OS && have.Architecture == want.Architecture) {
		return false, nil
	}
	if err = wrap("inspect image "+ref, err); err != nil && !errors.Is(err, ErrNotFound) {
		return false, err
	}
	o := client.ImagePullOptions{}
	if want != nil {
		o.Platforms = []ocispec.Platform{*want}
	}
	r, err := e.cli.ImagePull(ctx, ref, o)
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
