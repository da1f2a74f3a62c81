package fleet

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/context/docker"
	"github.com/docker/cli/cli/context/store"
	"gotest.tools/v3/assert"
)

func contextOf(description string, fields map[string]any) any {
	return command.DockerContext{Description: description, AdditionalFields: fields}
}

func TestContextsOfHostsAreWrittenAndOthersLeftAlone(t *testing.T) {
	s := store.New(t.TempDir(), command.DefaultContextStoreConfig())
	certs := t.TempDir()
	for _, f := range []string{"ca.pem", "cert.pem", "key.pem"} {
		assert.NilError(t, os.WriteFile(filepath.Join(certs, f), []byte(f), 0o600))
	}
	made, err := SaveContext(s, "demo", "h1", Access{Endpoint: "tcp://10.0.0.1:2376", CertDir: certs}, contextOf)
	assert.NilError(t, err)
	assert.Assert(t, made)
	meta, err := s.GetMetadata("demo-h1")
	assert.NilError(t, err)
	ep, err := docker.EndpointFromContext(meta)
	assert.NilError(t, err)
	assert.Equal(t, ep.Host, "tcp://10.0.0.1:2376")
	files, err := s.ListTLSFiles("demo-h1")
	assert.NilError(t, err)
	assert.Equal(t, len(files[docker.DockerEndpoint]), 3)

	// Another way to the same host replaces what we wrote.
	_, err = SaveContext(s, "demo", "h1", Access{Endpoint: "ssh://root@h1", CertDir: certs}, contextOf)
	assert.NilError(t, err)
	files, err = s.ListTLSFiles("demo-h1")
	assert.NilError(t, err)
	assert.Equal(t, len(files[docker.DockerEndpoint]), 0)

	// An endpoint that is a context, or none, needs none.
	for _, endpoint := range []string{"context:x", ""} {
		made, err := SaveContext(s, "demo", "h2", Access{Endpoint: endpoint}, contextOf)
		assert.NilError(t, err)
		assert.Assert(t, !made)
	}

	theirs := store.Metadata{Name: "demo-h3", Metadata: contextOf("mine", nil), Endpoints: map[string]any{docker.DockerEndpoint: docker.EndpointMeta{Host: "ssh://x"}}}
	assert.NilError(t, s.CreateOrUpdate(theirs))
	_, err = SaveContext(s, "demo", "h3", Access{Endpoint: "ssh://h3"}, contextOf)
	assert.ErrorIs(t, err, ErrNotOurs)
	assert.NilError(t, RemoveContext(s, "demo", "h3"))
	_, err = s.GetMetadata("demo-h3")
	assert.NilError(t, err)

	assert.NilError(t, RemoveContext(s, "demo", "h1"))
	assert.NilError(t, RemoveContext(s, "demo", "h1"))
	_, err = s.GetMetadata("demo-h1")
	assert.Assert(t, err != nil)

	// With its fleet go all that are ours, and no other fleet's.
	for _, x := range [][2]string{{"demo", "h4"}, {"demo", "h5"}, {"demo-h", "1"}} {
		_, err := SaveContext(s, x[0], x[1], Access{Endpoint: "ssh://x"}, contextOf)
		assert.NilError(t, err)
	}
	assert.NilError(t, RemoveContexts(s, "demo"))
	left, err := store.Names(s)
	assert.NilError(t, err)
	slices.Sort(left)
	assert.DeepEqual(t, left, []string{"demo-h-1", "demo-h3"})
}
