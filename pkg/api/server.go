package api

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"clocker.io/clocker/pkg/record"
)

// Backend is what a controller does behind the API. Errors that are a
// [*CallError] reach the caller with their status; others become a 500.
type Backend interface {
	Info(ctx context.Context) (Info, error)
	Deploy(ctx context.Context, user string, r DeployRequest, send func(Progress) error) error
	Progress(ctx context.Context, app string, release int, send func(Progress) error) error
	Cancel(ctx context.Context, app string) error
	Remove(ctx context.Context, app string, send func(Progress) error) error
	// Operate stops, starts or restarts services; none means all.
	Operate(ctx context.Context, app, operation string, services []string, send func(Progress) error) error
	Applications(ctx context.Context) ([]Application, error)
	Application(ctx context.Context, name string) (ApplicationDetail, error)
	Tasks(ctx context.Context, app string) ([]Task, error)
	Hosts(ctx context.Context) ([]Host, error)
	Host(ctx context.Context, name string) (Host, error)
	RegisterHost(ctx context.Context, r HostRequest) (HostCredentials, error)
	RemoveHost(ctx context.Context, name string, force bool, send func(Progress) error) error
	Events(ctx context.Context, follow bool, since string, send func(record.Event) error) error
	NetworkBackend
	// Agent serves a request about a task through its host's agent.
	Agent(task string, w http.ResponseWriter, r *http.Request)
	// Leader returns a handler that passes requests on to the leading
	// controller, or nil when this one leads.
	Leader() (http.Handler, error)
}

// The organisations that a caller's certificate may show.
const (
	orgAdmin      = "clocker:admin"
	orgController = "clocker:controller"
	userHeader    = "Clocker-User"
)

// NewHandler serves the API under [Version]. tunnel serves the agents' own
// connections; it checks their certificates itself.
func NewHandler(b Backend, tunnel http.Handler, log *slog.Logger) http.Handler {
	s := &server{b: b, log: log}
	mux := http.NewServeMux()
	read := func(pattern string, h func(http.ResponseWriter, *http.Request) error) {
		mux.HandleFunc(pattern, s.admit(h, false))
	}
	lead := func(pattern string, h func(http.ResponseWriter, *http.Request) error) {
		mux.HandleFunc(pattern, s.admit(h, true))
	}
	read("GET /v1/info", func(w http.ResponseWriter, r *http.Request) error { return answer(w)(b.Info(r.Context())) })
	read("GET /v1/applications", func(w http.ResponseWriter, r *http.Request) error { return answer(w)(b.Applications(r.Context())) })
	read("GET /v1/applications/{app}", func(w http.ResponseWriter, r *http.Request) error {
		return answer(w)(b.Application(r.Context(), r.PathValue("app")))
	})
	read("GET /v1/tasks", func(w http.ResponseWriter, r *http.Request) error {
		return answer(w)(b.Tasks(r.Context(), r.URL.Query().Get("app")))
	})
	read("GET /v1/hosts", func(w http.ResponseWriter, r *http.Request) error { return answer(w)(b.Hosts(r.Context())) })
	read("GET /v1/hosts/{host}", func(w http.ResponseWriter, r *http.Request) error {
		return answer(w)(b.Host(r.Context(), r.PathValue("host")))
	})
	read("GET /v1/events", s.events)
	read("GET /v1/applications/{app}/progress", s.progress)
	agent := func(w http.ResponseWriter, r *http.Request) error { b.Agent(r.PathValue("task"), w, r); return nil }
	read("GET /v1/tasks/{task}/logs", agent)
	read("POST /v1/tasks/{task}/exec", agent)
	read("GET /v1/tasks/{task}/exec/{exec}", agent)
	read("POST /v1/tasks/{task}/exec/{exec}/resize", agent)
	lead("POST /v1/applications", s.deploy)
	lead("POST /v1/applications/{app}/cancel", func(w http.ResponseWriter, r *http.Request) error {
		return answer(w)(struct{}{}, b.Cancel(r.Context(), r.PathValue("app")))
	})
	lead("POST /v1/applications/{app}/{operation}", s.operate)
	lead("DELETE /v1/applications/{app}", func(w http.ResponseWriter, r *http.Request) error {
		return serveStream(w, r, func(send func(Progress) error) error { return b.Remove(r.Context(), r.PathValue("app"), send) })
	})
	networkPaths(b, read, lead)
	lead("POST /v1/hosts", s.registerHost)
	lead("DELETE /v1/hosts/{host}", func(w http.ResponseWriter, r *http.Request) error {
		force := r.URL.Query().Get("force") == "1"
		return serveStream(w, r, func(send func(Progress) error) error {
			return b.RemoveHost(r.Context(), r.PathValue("host"), force, send)
		})
	})
	if tunnel != nil {
		mux.Handle("/v1/tunnel", tunnel)
	}
	return mux
}

type server struct {
	b   Backend
	log *slog.Logger
}

// admit lets users (and fellow controllers that pass a user's request on) in,
// and hands what only the leader may do to the leader.
func (s *server) admit(h func(http.ResponseWriter, *http.Request) error, leader bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		err := func() error {
			if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
				return &CallError{Status: http.StatusUnauthorized, Body: Error{Message: "a certificate of the fleet is needed"}}
			}
			subject := r.TLS.PeerCertificates[0].Subject
			fellow := slices.Contains(subject.Organization, orgController)
			if !fellow {
				r.Header.Del(userHeader)
				if !slices.Contains(subject.Organization, orgAdmin) {
					return &CallError{Status: http.StatusForbidden, Body: Error{Message: "certificate of " + subject.CommonName + " is not a user's"}}
				}
				r.Header.Set(userHeader, subject.CommonName)
			}
			if leader {
				next, err := s.b.Leader()
				if err != nil {
					return err
				}
				if next != nil && !fellow { // one hop only
					next.ServeHTTP(w, r)
					return nil
				}
			}
			return h(w, r)
		}()
		s.log.Debug("served", "method", r.Method, "path", r.URL.Path, "user", r.Header.Get(userHeader), "took", time.Since(start), "error", err)
		if err != nil && r.Context().Err() == nil {
			s.fail(w, r, err)
		}
	}
}

func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	var call *CallError
	if !errors.As(err, &call) {
		s.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		call = &CallError{Status: http.StatusInternalServerError, Body: Error{Message: err.Error()}}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(call.Status)
	json.NewEncoder(w).Encode(call.Body) //nolint:errcheck // the caller is gone
}

// maxBody bounds a request: a release may be larger than an etcd transaction,
// but not without end.
const maxBody = 32 << 20

func decode(w http.ResponseWriter, r *http.Request, v any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	if err := d.Decode(v); err != nil {
		return &CallError{Status: http.StatusBadRequest, Body: Error{Message: "request cannot be read: " + err.Error()}}
	}
	return nil
}

// answer writes a value as JSON, or returns the error that came with it.
func answer(w http.ResponseWriter) func(v any, err error) error {
	return func(v any, err error) error {
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(w).Encode(v)
	}
}

func (s *server) deploy(w http.ResponseWriter, r *http.Request) error {
	var req DeployRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if req.Application == nil {
		return &CallError{Status: http.StatusBadRequest, Body: Error{Message: "request holds no application"}}
	}
	return serveStream(w, r, func(send func(Progress) error) error {
		return s.b.Deploy(r.Context(), r.Header.Get(userHeader), req, send)
	})
}

func (s *server) progress(w http.ResponseWriter, r *http.Request) error {
	n, err := strconv.Atoi(r.URL.Query().Get("release"))
	if err != nil {
		return &CallError{Status: http.StatusBadRequest, Body: Error{Message: "release must be a number"}}
	}
	return serveStream(w, r, func(send func(Progress) error) error {
		return s.b.Progress(r.Context(), r.PathValue("app"), n, send)
	})
}

func (s *server) operate(w http.ResponseWriter, r *http.Request) error {
	op := r.PathValue("operation")
	if !slices.Contains([]string{"stop", "start", "restart"}, op) {
		return &CallError{Status: http.StatusNotFound, Body: Error{Message: "no such operation: " + op}}
	}
	return serveStream(w, r, func(send func(Progress) error) error {
		return s.b.Operate(r.Context(), r.PathValue("app"), op, r.URL.Query()["service"], send)
	})
}

func (s *server) registerHost(w http.ResponseWriter, r *http.Request) error {
	var req HostRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	return answer(w)(s.b.RegisterHost(r.Context(), req))
}

func (s *server) events(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	return serveStream(w, r, func(send func(record.Event) error) error {
		return s.b.Events(r.Context(), q.Get("follow") == "1", q.Get("since"), send)
	})
}

// heartbeat is how often a quiet stream of progress shows that it lives.
const heartbeat = 2 * time.Second

// serveStream sends JSON lines. An error before the first line becomes an answer
// of its own; one after it ends the stream without its last line, which a
// client notices.
func serveStream[T any](w http.ResponseWriter, r *http.Request, f func(send func(T) error) error) error {
	var mu sync.Mutex
	started := false
	rc := http.NewResponseController(w)
	enc := json.NewEncoder(w)
	write := func(v any) error {
		mu.Lock()
		defer mu.Unlock()
		if !started {
			started = true
			w.Header().Set("Content-Type", "application/x-ndjson")
			w.WriteHeader(http.StatusOK)
		}
		if err := enc.Encode(v); err != nil {
			return err
		}
		return rc.Flush()
	}
	stop := make(chan struct{})
	var beating sync.WaitGroup
	beating.Go(func() {
		t := time.NewTicker(heartbeat)
		defer t.Stop()
		for {
			select {
			case <-stop:
				return
			case <-t.C:
				if write(struct{}{}) != nil {
					return
				}
			}
		}
	})
	err := f(func(v T) error { return write(v) })
	close(stop)
	beating.Wait() // from here on nobody else touches started
	if started && err != nil {
		// The headers are out: say it in the stream's own words.
		if r.Context().Err() == nil {
			write(Progress{Problem: err.Error(), Done: "failed"}) //nolint:errcheck // the caller is gone
		}
		return nil
	}
	if !started && err == nil {
		w.Header().Set("Content-Type", "application/x-ndjson")
		w.WriteHeader(http.StatusOK)
	}
	return err
}
