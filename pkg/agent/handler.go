package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"sync"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/engine"
)

// handler answers what controllers ask through the tunnel: logs of tasks and
// commands in them, under the paths of package api without their version.
type handler struct {
	engine Engine
	// container gives the container of a task of this host.
	container func(task string) (engine.Container, bool)
	log       *slog.Logger
	// net answers about the host's networks; nil answers nothing about them.
	net *netRelay
	// shells runs commands on the host itself; nil refuses them.
	shells *shells
}

// routes are the paths that the handler answers.
func (h *handler) routes() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	m.HandleFunc("GET /tasks/{task}/logs", h.logs)
	m.HandleFunc("POST /tasks/{task}/exec", h.exec)
	m.HandleFunc("GET /tasks/{task}/exec/{exec}", h.execState)
	m.HandleFunc("POST /tasks/{task}/exec/{exec}/resize", h.execResize)
	if h.shells != nil {
		h.hostRoutes(m)
	}
	if h.net != nil {
		h.net.routes(m)
	}
	return m
}

func refuse(w http.ResponseWriter, code int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(api.Error{Message: err.Error()}) // a client that is gone reads nothing
}

// codeOf is the status for an engine's refusal.
func codeOf(err error) int {
	switch {
	case errors.Is(err, engine.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, engine.ErrConflict):
		return http.StatusConflict
	case errors.Is(err, engine.ErrInvalid), errors.Is(err, engine.ErrCommand):
		return http.StatusBadRequest
	case errors.Is(err, engine.ErrAway):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

func (h *handler) find(w http.ResponseWriter, r *http.Request) (engine.Container, bool) {
	task := r.PathValue("task")
	c, ok := h.container(task)
	if !ok {
		refuse(w, http.StatusNotFound, fmt.Errorf("task %s has no container on this host", task))
	}
	return c, ok
}

func truth(s string) bool {
	b, err := strconv.ParseBool(s)
	return err == nil && b
}

func (h *handler) logs(w http.ResponseWriter, r *http.Request) {
	c, ok := h.find(w, r)
	if !ok {
		return
	}
	q := r.URL.Query()
	logs, err := h.engine.Logs(r.Context(), c.ID, engine.LogOptions{
		Follow: truth(q.Get("follow")), Timestamps: truth(q.Get("timestamps")),
		Tail: q.Get("tail"), Since: q.Get("since"),
	})
	if err != nil {
		refuse(w, codeOf(err), err)
		return
	}
	defer func() { _ = logs.Close() }()
	h.stream(w, r, logs, streamType(c.TTY), c.Name)
}

// stream copies a log to a client as it grows.
func (h *handler) stream(w http.ResponseWriter, r *http.Request, logs io.Reader, as, name string) {
	w.Header().Set("Content-Type", as)
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	_ = rc.Flush() // an empty log that is followed shows that it is there
	buf := make([]byte, 32<<10)
	for {
		n, err := logs.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return
			}
			if rc.Flush() != nil {
				return
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && r.Context().Err() == nil {
				h.log.Debug("log broken off", "log", name, "error", err)
			}
			return
		}
	}
}

// streamType is the engine's own media type for a stream.
func streamType(tty bool) string {
	if tty {
		return "application/vnd.docker.raw-stream"
	}
	return "application/vnd.docker.multiplexed-stream"
}

func (h *handler) exec(w http.ResponseWriter, r *http.Request) {
	c, ok := h.find(w, r)
	if !ok {
		return
	}
	var req api.ExecRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&req); err != nil {
		refuse(w, http.StatusBadRequest, fmt.Errorf("read request: %w", err))
		return
	}
	if len(req.Cmd) == 0 {
		refuse(w, http.StatusBadRequest, errors.New("no command to run"))
		return
	}
	if r.Header.Get("Upgrade") == "" {
		refuse(w, http.StatusUpgradeRequired, errors.New("the connection must be upgraded (Upgrade: tcp)"))
		return
	}
	// The command lives longer than the request: hijacking ends its context.
	x, err := h.engine.Exec(context.WithoutCancel(r.Context()), c.ID, engine.ExecRequest(req))
	if err != nil {
		refuse(w, codeOf(err), err)
		return
	}
	h.converse(w, x, req.TTY, func() {})
}

// converse joins a client's connection to a command's until the command ends.
// ended is called once, when nothing more comes from the command and before the
// client learns that, or when the client has gone.
func (h *handler) converse(w http.ResponseWriter, x *engine.Exec, tty bool, ended func()) {
	whole := sync.OnceFunc(ended)
	defer whole()
	defer func() { _ = x.Close() }()
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	defer func() { _ = conn.Close() }()
	_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: %s\r\n%s: %s\r\n\r\n",
		streamType(tty), api.ExecHeader, x.ID)
	if err != nil {
		return
	}
	go func() {
		_, err := io.Copy(x, buf.Reader)
		if err != nil {
			_ = x.Close() // the other side is gone: nobody reads the output
			return
		}
		_ = x.CloseWrite()
	}()
	if _, err := io.Copy(conn, x); err != nil {
		return
	}
	whole()
	if cw, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = cw.CloseWrite()
	}
}

func (h *handler) execState(w http.ResponseWriter, r *http.Request) {
	if _, ok := h.find(w, r); !ok {
		return
	}
	s, err := h.engine.ExecState(r.Context(), r.PathValue("exec"))
	if err != nil {
		refuse(w, codeOf(err), err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(api.ExecState(s)) // a client that is gone reads nothing
}

func (h *handler) execResize(w http.ResponseWriter, r *http.Request) {
	if _, ok := h.find(w, r); !ok {
		return
	}
	height, err := strconv.ParseUint(r.URL.Query().Get("h"), 10, 16)
	width, err2 := strconv.ParseUint(r.URL.Query().Get("w"), 10, 16)
	if err = errors.Join(err, err2); err != nil {
		refuse(w, http.StatusBadRequest, fmt.Errorf("resize terminal: %w", err))
		return
	}
	if err := h.engine.ExecResize(r.Context(), r.PathValue("exec"), uint(height), uint(width)); err != nil {
		refuse(w, codeOf(err), err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
