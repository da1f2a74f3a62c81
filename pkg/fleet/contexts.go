package fleet

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	clicontext "github.com/docker/cli/cli/context"
	"github.com/docker/cli/cli/context/docker"
	"github.com/docker/cli/cli/context/store"

	"clocker.io/clocker/pkg/engine/connect"
)

// ContextField is the field of a docker context's metadata that tells whose
// host it is: one without it was made by somebody else and is left alone.
const ContextField = "io.clocker.host"

// ErrNotOurs means that there is a docker context of that name which this
// program did not make.
var ErrNotOurs = errors.New("made by somebody else")

// ContextName is the name of the docker context of a host.
func ContextName(fleet, host string) string { return fleet + "-" + host }

// ContextMetadata makes the part of a context's metadata that the docker
// command reads into its own type; [command.DockerContext] of docker/cli is
// what it makes in the plugin.
type ContextMetadata func(description string, fields map[string]any) any

// SaveContext writes a docker context for a host of a fleet, or brings ours to
// what it should be. It holds the endpoint, and for TLS copies of the files in
// a.CertDir. The error matches [ErrNotOurs] when the name is taken. Endpoints
// that are a context themselves need none: made is false for them.
func SaveContext(s store.Store, fleet, host string, a Access, meta ContextMetadata) (made bool, err error) {
	if a.Endpoint == "" || strings.HasPrefix(a.Endpoint, connect.ContextPrefix) {
		return false, nil
	}
	name := ContextName(fleet, host)
	if err := checkOurs(s, name, fleet); err != nil {
		return false, err
	}
	id := fleet + "/" + host
	err = s.CreateOrUpdate(store.Metadata{
		Name:      name,
		Metadata:  meta(fmt.Sprintf("Host %s of fleet %s", host, fleet), map[string]any{ContextField: id}),
		Endpoints: map[string]any{docker.DockerEndpoint: docker.EndpointMeta{Host: a.Endpoint}},
	})
	if err != nil {
		return false, fmt.Errorf("write docker context %s: %w", name, err)
	}
	var tls *clicontext.TLSData
	if strings.HasPrefix(a.Endpoint, "tcp://") && a.CertDir != "" {
		tls, err = clicontext.TLSDataFromFiles(filepath.Join(a.CertDir, "ca.pem"), filepath.Join(a.CertDir, "cert.pem"), filepath.Join(a.CertDir, "key.pem"))
		if err != nil {
			return true, fmt.Errorf("write docker context %s: %w", name, err)
		}
	}
	if err := s.ResetEndpointTLSMaterial(name, docker.DockerEndpoint, tls.ToStoreTLSData()); err != nil {
		return true, fmt.Errorf("write docker context %s: %w", name, err)
	}
	return true, nil
}

// RemoveContext removes the docker context of a host, if it is ours.
func RemoveContext(s store.Store, fleet, host string) error {
	name := ContextName(fleet, host)
	err := checkOurs(s, name, fleet)
	if errors.Is(err, ErrNotOurs) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.Remove(name); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove docker context %s: %w", name, err)
	}
	return nil
}

// RemoveContexts removes the docker contexts of all hosts of a fleet that are
// ours.
func RemoveContexts(s store.Store, fleet string) error {
	all, err := s.List()
	if err != nil {
		return fmt.Errorf("list docker contexts: %w", err)
	}
	var errs []error
	for _, m := range all {
		if !isOurs(m, fleet) {
			continue
		}
		if err := s.Remove(m.Name); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("remove docker context %s: %w", m.Name, err))
		}
	}
	return errors.Join(errs...)
}

func checkOurs(s store.Store, name, fleet string) error {
	was, err := s.GetMetadata(name)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read docker context %s: %w", name, err)
	}
	if !isOurs(was, fleet) {
		return fmt.Errorf("docker context %s: %w: it is left alone", name, ErrNotOurs)
	}
	return nil
}

// isOurs reports whether a context is that of a host of a fleet.
func isOurs(m store.Metadata, fleet string) bool {
	// Whoever reads it has a type of its own for it.
	return strings.Contains(fmt.Sprintf("%+v", m.Metadata), ContextField+":"+fleet+"/")
}
