// Command identidock is a web page that shows an identicon for a name. It asks
// dnmonster for the picture and keeps it in redis.
//
// It finds both by name, anew at each request, so that either may move: the
// demonstration is that they can be on any host. Without redis it works
// uncached; without dnmonster it says so. It lives in the image
// amouat/identidock:1.0 of the testbed's registry.
package main

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/redis/go-redis/v9"
)

const maxPicture = 4 << 20

func main() {
	s := &server{
		monster: env("DNMONSTER_URL", "http://dnmonster:8080"),
		// A connection per request, so that the name is looked up each time.
		http: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
		redis: func() *redis.Client {
			return redis.NewClient(&redis.Options{
				Addr: env("REDIS_ADDR", "redis:6379"), MaxRetries: -1, PoolSize: 1,
				DialTimeout: 2 * time.Second, ReadTimeout: 2 * time.Second, WriteTimeout: 2 * time.Second,
			})
		},
	}
	addr := ":" + env("PORT", "9090")
	srv := &http.Server{Addr: addr, Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second}
	log.Printf("identidock: listening on %s", addr)
	log.Fatal(srv.ListenAndServe())
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

type server struct {
	monster string
	http    *http.Client
	redis   func() *redis.Client
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /{$}", s.page)
	mux.HandleFunc("POST /{$}", s.page)
	mux.HandleFunc("GET /monster/{name}", s.picture)
	return mux
}

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Identidock</title></head>
<body>
<h1>Hello {{.Name}}</h1>
<form method="post" action="/">
<label>Name <input type="text" name="name" value="{{.Name}}"></label>
<button type="submit">submit</button>
</form>
<p>You look like:</p>
<img src="/monster/{{.Name}}" width="160" height="160" alt="identicon of {{.Name}}">
<p><small>served by {{.Host}}</small></p>
</body></html>
`))

func (s *server) page(w http.ResponseWriter, r *http.Request) {
	name := r.FormValue("name")
	if name == "" {
		name = "Joe Bloggs"
	}
	host, _ := os.Hostname()
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if err := page.Execute(w, struct{ Name, Host string }{name, host}); err != nil {
		log.Printf("identidock: write page: %v", err)
	}
}

func (s *server) picture(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	cache := s.redis()
	defer cache.Close()
	key := "monster:" + name
	b, err := cache.Get(r.Context(), key).Bytes()
	if err == nil {
		answer(w, b, "hit")
		return
	}
	up := errors.Is(err, redis.Nil)
	if !up {
		log.Printf("identidock: going on without the cache: %v", err)
	}
	if b, err = s.fetch(r.Context(), name); err != nil {
		log.Printf("identidock: %v", err)
		http.Error(w, fmt.Sprintf("No picture: dnmonster does not answer.\n%v", err), http.StatusBadGateway)
		return
	}
	if up {
		if err := cache.Set(r.Context(), key, b, 0).Err(); err != nil {
			log.Printf("identidock: keep in cache: %v", err)
		}
	}
	answer(w, b, "miss")
}

func answer(w http.ResponseWriter, picture []byte, cached string) {
	w.Header().Set("Content-Type", "image/png")
	w.Header().Set("X-Cache", cached)
	if _, err := w.Write(picture); err != nil {
		log.Printf("identidock: write picture: %v", err)
	}
}

func (s *server) fetch(ctx context.Context, name string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.monster+"/monster/"+url.PathEscape(name)+"?size=160", nil)
	if err != nil {
		return nil, fmt.Errorf("ask dnmonster: %w", err)
	}
	resp, err := s.http.Do(req)
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return nil, fmt.Errorf("find dnmonster: %w", dns)
	}
	if err != nil {
		return nil, fmt.Errorf("ask dnmonster: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask dnmonster: it says %s", resp.Status)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxPicture))
	if err != nil {
		return nil, fmt.Errorf("read picture: %w", err)
	}
	return b, nil
}
