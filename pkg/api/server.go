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
	ControllerBackend
	ScaleBackend
	HostBackend
	HostWorkBackend
	AccessBackend
	PlacementBackend
	CABackend
	// Agent serves a request about a task through its host's agent.
	Agent(task string, w http.ResponseWriter, r *http.Request)
	// Leader returns a handler that passes requests on to the leading
	// controller, or nil when this one leads.
	Leader() (http.Handler, error)
}

// The organisations that a caller's certificate may show.
const (
	orgAdmin      = "clocker:admin"
	orgUser       = "clocker:user"
	orgHost       = "clocker:host"
	orgController = "clocker:controller"
)

// NewHandler serves the API under [Version]. tunnel serves the agents' own
// connections; it checks their certificates itself.
func NewHandler(b Backend, tunnel http.Handler, log *slog.Logger) http.Handler {
	s := &server{b: b, log: log, joins: newRate(joinBurst, joinEvery, time.Now)}
	mux := http.NewServeMux()
	read := func(pattern string, h func(http.ResponseWriter, *http.Request) error) {
		mux.HandleFunc(pattern, s.admit(pattern, h, false))
	}
	lead := func(pattern string, h func(http.ResponseWriter, *http.Request) error) {
		mux.HandleFunc(pattern, s.admit(pattern, h, true))
	}
	read("GET /v1/info", func(w http.ResponseWriter, r *http.Request) error { return answer(w)(b.Info(r.Context())) })
	read("GET /v1/applications", func(w http.ResponseWriter, r *http.Request) error {
		all, err := b.Applications(r.Context())
		return answer(w)(visible(r, all, func(a Application) string { return a.Name }), err)
	})
	read("GET /v1/applications/{app}", func(w http.ResponseWriter, r *http.Request) error {
		return answer(w)(b.Application(r.Context(), r.PathValue("app")))
	})
	read("GET /v1/tasks", func(w http.ResponseWriter, r *http.Request) error {
		all, err := b.Tasks(r.Context(), r.URL.Query().Get("app"))
		return answer(w)(visible(r, all, func(t Task) string { return t.App }), err)
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
	accessPaths(s, read, lead)
	controllerPaths(b, read, lead)
	scalePaths(b, read, lead)
	hostPaths(b, read, lead)
	hostWorkPaths(b, read, lead)
	placementPaths(b, read, lead)
	caPaths(b, read, lead)
	lead("POST /v1/hosts", s.registerHost)
	lead("DELETE /v1/hosts/{host}", func(w http.ResponseWriter, r *http.Request) error {
		force := r.URL.Query().Get("force") == "1"
		return serveStream(w, r, func(send func(Progress) error) error {
			return b.RemoveHost(r.Context(), r.PathValue("host"), force, send)
		})
	})
	if tunnel != nil {
		mux.HandleFunc("/v1/tunnel", s.tunnel(tunnel))
	}
	return mux
}

type server struct {
	b   Backend
	log *slog.Logger
	// joins bounds what callers without a certificate may try.
	joins *rate
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
	caller := CallerOf(r.Context())
	about(r.Context(), req.Application.Name)
	if !caller.May(record.RoleDeploy, req.Application.Name) {
		return forbidden(caller, record.RoleDeploy, req.Application.Name)
	}
	return serveStream(w, r, func(send func(Progress) error) error {
		return s.b.Deploy(r.Context(), caller.User, req, send)
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
	about(r.Context(), req.Name)
	return answer(w)(s.b.RegisterHost(r.Context(), req))
}

func (s *server) events(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	return serveStream(w, r, func(send func(record.Event) error) error {
		caller := CallerOf(r.Context())
		return s.b.Events(r.Context(), q.Get("follow") == "1", q.Get("since"), func(e record.Event) error {
			if !s.seesEvent(caller, e) {
				return nil
			}
			return send(e)
		})
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
	err := f(func(v T) error {
		if p, ok := any(v).(Progress); ok && p.Done != "" {
			ended(r.Context(), p.Done)
		}
		return write(v)
	})
	close(stop)
	beating.Wait() // from here on nobody else touches started
	if started && err != nil {
		// The headers are out: say it in the stream's own words.
		ended(r.Context(), err.Error())
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
