package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// newServer has a dnmonster that answers as told, and no redis.
func newServer(t *testing.T, monster http.HandlerFunc) http.Handler {
	t.Helper()
	m := httptest.NewServer(monster)
	t.Cleanup(m.Close)
	s := &server{monster: m.URL, http: m.Client(), redis: func() *redis.Client {
		return redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1, DialTimeout: time.Second})
	}}
	return s.handler()
}

func TestPictureWithoutCache(t *testing.T) {
	h := newServer(t, func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(r.URL.Path)) })
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/monster/a%20b", nil))
	if w.Code != http.StatusOK || w.Body.String() != "/monster/a b" || w.Header().Get("X-Cache") != "miss" {
		t.Errorf("got %d %q, X-Cache %q", w.Code, w.Body, w.Header().Get("X-Cache"))
	}
}

func TestPictureWithoutMonster(t *testing.T) {
	h := newServer(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/monster/joe", nil))
	if w.Code != http.StatusBadGateway || !strings.Contains(w.Body.String(), "dnmonster does not answer") {
		t.Errorf("got %d %q", w.Code, w.Body)
	}
}

func TestPageEscapesTheName(t *testing.T) {
	h := newServer(t, nil)
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("name=%3Cb%3E%20joe"))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	h.ServeHTTP(w, r)
	if body := w.Body.String(); strings.Contains(body, "<b>") || !strings.Contains(body, `src="/monster/%3cb%3e%20joe"`) {
		t.Errorf("page is %s", body)
	}
}
