package main

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func ask(t *testing.T, h http.Handler, method, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w.Code, w.Body.String()
}

func TestHealthCanBeLost(t *testing.T) {
	h := handler()
	for _, step := range []struct {
		set  string
		want int
	}{{"", http.StatusOK}, {"false", http.StatusServiceUnavailable}, {"true", http.StatusOK}} {
		if step.set != "" {
			ask(t, h, http.MethodPost, "/health?ok="+step.set)
		}
		if code, _ := ask(t, h, http.MethodGet, "/healthz"); code != step.want {
			t.Errorf("after ok=%s: status %d, not %d", step.set, code, step.want)
		}
	}
}

func TestDialAndGet(t *testing.T) {
	h := handler()
	other := httptest.NewServer(h)
	defer other.Close()
	addr := strings.TrimPrefix(other.URL, "http://")
	send := url.QueryEscape("GET /healthz HTTP/1.0\r\n\r\n")
	code, body := ask(t, h, http.MethodGet, "/dial?addr="+addr+"&send="+send)
	if code != http.StatusOK || !strings.Contains(body, " -> "+addr) || !strings.Contains(body, "200 OK") {
		t.Errorf("dial: %d %q", code, body)
	}
	if code, body := ask(t, h, http.MethodGet, "/get?url="+other.URL+"/healthz"); code != http.StatusOK || body != "ok\n" {
		t.Errorf("get: %d %q", code, body)
	}
	other.Close()
	if code, _ := ask(t, h, http.MethodGet, "/dial?timeout=1s&addr="+addr); code != http.StatusBadGateway {
		t.Errorf("dial to nobody: %d", code)
	}
}

func TestLookup(t *testing.T) {
	if code, body := ask(t, handler(), http.MethodGet, "/lookup?name=127.0.0.9"); code != http.StatusOK || body != "127.0.0.9\n" {
		t.Errorf("lookup: %d %q", code, body)
	}
	if code, _ := ask(t, handler(), http.MethodGet, "/lookup?name=no.such.name.invalid"); code != http.StatusNotFound {
		t.Errorf("lookup of nothing: %d", code)
	}
}
