package main

import (
	"bytes"
	"image/png"
	"net/http"
	"net/http/httptest"
	"testing"
)

func get(t *testing.T, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

func TestMonsterIsTheSameForTheSameName(t *testing.T) {
	one, two, other := get(t, "/monster/joe?size=80"), get(t, "/monster/joe"), get(t, "/monster/ann")
	if one.Code != http.StatusOK || !bytes.Equal(one.Body.Bytes(), two.Body.Bytes()) {
		t.Errorf("joe twice: status %d, equal %v", one.Code, bytes.Equal(one.Body.Bytes(), two.Body.Bytes()))
	}
	if bytes.Equal(one.Body.Bytes(), other.Body.Bytes()) {
		t.Error("joe and ann look the same")
	}
}

func TestMonsterIsSymmetrical(t *testing.T) {
	m, err := png.Decode(get(t, "/monster/joe?size=70").Body)
	if err != nil {
		t.Fatal(err)
	}
	if m.Bounds().Dx() != 70 || m.Bounds().Dy() != 70 {
		t.Fatalf("size is %v", m.Bounds())
	}
	for y := range 70 {
		for x := range 35 {
			if m.At(x, y) != m.At(69-x, y) {
				t.Fatalf("(%d,%d) differs from its mirror", x, y)
			}
		}
	}
}

func TestMonsterRefusesOddSizes(t *testing.T) {
	for _, size := range []string{"0", "-1", "x", "99999"} {
		if c := get(t, "/monster/joe?size="+size).Code; c != http.StatusBadRequest {
			t.Errorf("size %s: status %d", size, c)
		}
	}
}
