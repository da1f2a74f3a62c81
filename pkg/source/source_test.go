package source_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/source"
)

const (
	blueprintText = "id: shop\nservices:\n- type: docker:redis:3\n"
	composeText   = "services:\n  web: {image: \"nginx:${TAG:-1}\"}\n"
)

// directory makes a directory with the named files.
func directory(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "My Shop")
	assert.NilError(t, os.Mkdir(dir, 0o700))
	for name, content := range files {
		assert.NilError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	return dir
}

// read reads and loads, and gives the application's name, dialect and service
// ids in one line.
func read(t *testing.T, ref, stdin string, opts source.Options) (string, error) {
	t.Helper()
	files, err := source.Read(t.Context(), ref, strings.NewReader(stdin))
	if err != nil {
		return "", err
	}
	app, _, err := source.Load(t.Context(), files, opts)
	if err != nil {
		return "", err
	}
	line := app.Name + " " + app.Dialect
	for _, e := range app.Entities {
		line += " " + e.ID + "=" + e.Service.Image
	}
	return line, nil
}

func TestReadDirectory(t *testing.T) {
	for _, c := range []struct {
		files map[string]string
		want  string
	}{
		{map[string]string{"compose.yaml": composeText, "docker-compose.yml": "no"}, "myshop compose web=docker.io/library/nginx:1"},
		{map[string]string{"docker-compose.yaml": composeText, ".env": "TAG=2\n"}, "myshop compose web=docker.io/library/nginx:2"},
		{map[string]string{"compose.yml": composeText, "compose.override.yaml": "services: {web: {image: other}}\n"}, "myshop compose web=docker.io/library/other:latest"},
		{map[string]string{"clocker.yaml": blueprintText}, "shop blueprint redis=docker.io/library/redis:3"},
		{map[string]string{"blueprint.yaml": strings.Replace(blueprintText, "id: shop", "version: 1", 1)}, "my-shop blueprint redis=docker.io/library/redis:3"},
		{map[string]string{"redis.bom": blueprintText, "notes.txt": "x"}, "shop blueprint redis=docker.io/library/redis:3"},
	} {
		got, err := read(t, directory(t, c.files), "", source.Options{})
		assert.NilError(t, err)
		assert.Equal(t, got, c.want)
	}
	for _, c := range []struct {
		files map[string]string
		want  string
	}{
		{nil, "no application found: looked for compose.yaml, compose.yml, docker-compose.yml, docker-compose.yaml, clocker.yaml, clocker.yml, blueprint.yaml, blueprint.yml and *.bom"},
		{map[string]string{"clocker.yaml": "", "blueprint.yaml": "", "a.bom": ""}, "several applications found, name one: clocker.yaml, blueprint.yaml, a.bom"},
		{map[string]string{"compose.yaml": "", "b.bom": ""}, "several applications found, name one: compose.yaml, b.bom"},
	} {
		_, err := read(t, directory(t, c.files), "", source.Options{})
		assert.ErrorContains(t, err, c.want)
	}
}

func TestReadFile(t *testing.T) {
	dir := directory(t, map[string]string{"app.yaml": composeText, "b.yaml": blueprintText, "compose.override.yaml": "services: {web: {image: other}}\n"})
	got, err := read(t, filepath.Join(dir, "app.yaml"), "", source.Options{Env: map[string]string{"TAG": "9"}})
	assert.NilError(t, err)
	assert.Equal(t, got, "myshop compose web=docker.io/library/nginx:9", "a named file is read alone")
	got, err = read(t, filepath.Join(dir, "b.yaml"), "", source.Options{Name: "other"})
	assert.NilError(t, err)
	assert.Equal(t, got, "other blueprint redis=docker.io/library/redis:3")

	for ref, want := range map[string]string{
		"":                              "name a file",
		filepath.Join(dir, "gone.yaml"): "gone.yaml: no such file or directory",
		"ftp://x/y":                     "ftp:// is not supported",
		"file:///x/y":                   "file:// is not supported: use a path",
	} {
		_, err := read(t, ref, "", source.Options{})
		assert.ErrorContains(t, err, want)
	}
}

func TestReadStdin(t *testing.T) {
	got, err := read(t, "-", blueprintText, source.Options{})
	assert.NilError(t, err)
	assert.Equal(t, got, "shop blueprint redis=docker.io/library/redis:3")
	got, err = read(t, "-", composeText, source.Options{ProjectDir: "/srv/place"})
	assert.NilError(t, err)
	assert.Equal(t, got, "place compose web=docker.io/library/nginx:1")
	_, err = read(t, "-", "services:\n- type: docker:redis\n", source.Options{})
	assert.ErrorContains(t, err, "the application has no name")
	_, err = read(t, "-", strings.Repeat("x", 5<<20), source.Options{})
	assert.ErrorContains(t, err, "larger than 4 MiB")
}

func TestReadURL(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/apps/shop.yaml", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write([]byte(composeText))
	})
	mux.HandleFunc("/page", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/apps/shop.yaml", http.StatusFound) })
	mux.HandleFunc("/circle", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/circle", http.StatusFound) })
	server := httptest.NewServer(mux)
	defer server.Close()

	got, err := read(t, server.URL+"/apps/shop.yaml?token=secret", "", source.Options{})
	assert.NilError(t, err)
	assert.Equal(t, got, "shop compose web=docker.io/library/nginx:1")
	_, err = read(t, server.URL+"/moved", "", source.Options{})
	assert.NilError(t, err)
	for path, want := range map[string]string{
		"/gone?token=secret": "/gone: the server answers 404 Not Found",
		"/page":              "this is a web page",
		"/circle":            "redirected more than 10 times",
	} {
		_, err := read(t, server.URL+path, "", source.Options{})
		assert.ErrorContains(t, err, want)
		assert.Assert(t, !strings.Contains(err.Error(), "secret"), "%v", err)
	}
	_, err = read(t, "http://", "", source.Options{})
	assert.ErrorContains(t, err, "not a URL")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = source.Read(ctx, server.URL+"/apps/shop.yaml", nil)
	assert.ErrorIs(t, err, context.Canceled)
}

func TestDetect(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"x", "services: []", "blueprint"},
		{"x", "services: {}", "compose"},
		{"x", "base: &b [a]\nservices: *b", "blueprint"},
		{"x", "location: here", "blueprint"},
		{"x", "brooklyn.catalog: {}", "blueprint"},
		{"x", "include: [y]", "compose"},
		{"x", "services:", "blueprint"},
		{"dir/compose.yaml", "name: a", "compose"},
		{"a.bom", "name: a", "blueprint"},
		{"x", "name: a", ""},
		{"x", "- a", ""},
		{"x", "a: [", ""},
		{"x", "", ""},
	} {
		assert.Equal(t, source.Detect(c.name, []byte(c.text)), c.want, "%s: %s", c.name, c.text)
	}
}

func TestLoadRefuses(t *testing.T) {
	file := func(name, text string) source.File { return source.File{Name: name, Content: []byte(text)} }
	for _, c := range []struct {
		files []source.File
		want  string
	}{
		{nil, "there is no file to read"},
		{[]source.File{file("a", "")}, "a: the file is empty"},
		{[]source.File{file("a", "name: x")}, "a: neither a blueprint nor a compose file (a map with services"},
		{[]source.File{file("a", "a: [")}, "a:1: not YAML"},
		{[]source.File{file("a", "a:\n\tb: c")}, "a:2:1: a tab indents this line"},
		{[]source.File{file("a", composeText), file("b", blueprintText)}, "b: a blueprint file cannot be merged with a compose file"},
		{[]source.File{file("a", blueprintText), file("b", blueprintText)}, "b: a blueprint is one file"},
	} {
		app, _, err := source.Load(t.Context(), c.files, source.Options{})
		assert.ErrorContains(t, err, c.want)
		assert.Assert(t, app == nil)
	}
}

// FuzzLoad holds that any text is loaded or refused, whichever dialect it is.
func FuzzLoad(f *testing.F) {
	f.Add("x", []byte(blueprintText))
	f.Add("a.bom", []byte(composeText))
	f.Add("compose.yaml", []byte("name: x\nservices: 5\n"))
	f.Fuzz(func(t *testing.T, name string, content []byte) {
		app, _, err := source.Load(t.Context(), []source.File{{Name: name, Content: content, Remote: true}}, source.Options{Name: "app"})
		if (app == nil) == (err == nil) {
			t.Fatalf("application %v and error %v", app, err)
		}
	})
}
