package storetest

import (
	"context"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

func TestServerKeepsDataOverStopAndStart(t *testing.T) {
	s := StartServer(t)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	_, err := s.Client().Put(ctx, "/k", "v")
	assert.NilError(t, err)
	url := s.URL()

	s.Stop()
	short, done := context.WithTimeout(ctx, 200*time.Millisecond)
	_, err = s.Client().Get(short, "/k")
	done()
	assert.Assert(t, err != nil, "a stopped server answered")

	s.Start()
	assert.Equal(t, s.URL(), url)
	r, err := s.Client().Get(ctx, "/k")
	assert.NilError(t, err)
	assert.Equal(t, string(r.Kvs[0].Value), "v")
}

func TestServersAreSeparate(t *testing.T) {
	a, b := Start(t), Start(t)
	_, err := a.Put(t.Context(), "/k", "v")
	assert.NilError(t, err)
	r, err := b.Get(t.Context(), "/k")
	assert.NilError(t, err)
	assert.Equal(t, len(r.Kvs), 0)
}
