package controller

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// standby is a controller that passes everything on to a leader.
func standby(t *testing.T, leader *httptest.Server) *httptest.Server {
	t.Helper()
	to, err := url.Parse(leader.URL)
	assert.NilError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(leader.Certificate())
	s := httptest.NewServer(forward(to, &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}))
	t.Cleanup(s.Close)
	return s
}

func ask(t *testing.T, s *httptest.Server, method string) (int, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL, nil)
	assert.NilError(t, err)
	res, err := s.Client().Do(req)
	if err != nil {
		return 0, err
	}
	return res.StatusCode, res.Body.Close()
}

// By 503 the caller may ask again: it must not hear that of something that the
// leader may have done.
func TestWhatTheLeaderMayHaveDoneIsNotAskedAgain(t *testing.T) {
	done := 0
	leader := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete {
			done++
		}
		panic(http.ErrAbortHandler) // it dies before it answers
	}))
	defer leader.Close()
	s := standby(t, leader)
	_, err := ask(t, s, http.MethodDelete)
	assert.Assert(t, err != nil, "the connection must break")
	assert.Equal(t, done, 1)
	status, err := ask(t, s, http.MethodGet)
	assert.NilError(t, err)
	assert.Equal(t, status, http.StatusServiceUnavailable)
	leader.Close()
	status, err = ask(t, s, http.MethodDelete)
	assert.NilError(t, err)
	assert.Equal(t, status, http.StatusServiceUnavailable)
	assert.Equal(t, done, 1)
}

func TestRequestsThatArePassedOnLeaveNoConnections(t *testing.T) {
	var open atomic.Int64
	leader := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	leader.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed:
			open.Add(-1)
		}
	}
	leader.StartTLS()
	defer leader.Close()
	s := standby(t, leader)
	for range 20 {
		status, err := ask(t, s, http.MethodPost)
		assert.NilError(t, err)
		assert.Equal(t, status, http.StatusNoContent)
	}
	for end := time.Now().Add(30 * time.Second); open.Load() > 0; <-time.After(10 * time.Millisecond) {
		assert.Assert(t, time.Now().Before(end), "%d connections are left", open.Load())
	}
}
