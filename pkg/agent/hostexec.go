package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/engine"
)

// agentContainer is the name of the agent's own container: shells are made
// from its image.
const agentContainer = "clocker-agent"

// EnterCommand is the command of this program that enters the machine's own
// namespaces and becomes the command that follows; alone it waits.
const EnterCommand = "hostenter"

// shelled is an engine that runs commands on its machine, and whose API can be
// passed on.
type shelled interface {
	Dial(ctx context.Context) (net.Conn, error)
	StartShell(ctx context.Context, like string, entrypoint []string) (id string, err error)
	RemoveShells(ctx context.Context) error
}

// shells runs commands on the host itself, each in a container of its own that
// ends with it. It is safe for concurrent use.
type shells struct {
	engine Engine
	make   shelled
	log    *slog.Logger

	// mu guards ended: how commands ended, whose containers are gone. An
	// entry is dropped after a while.
	mu    sync.Mutex
	ended map[string]endedShell
}

type endedShell struct {
	state api.ExecState
	at    time.Time
}

// endedKept is how long it is remembered how a command ended.
const endedKept = 2 * time.Minute

// newShells removes what an agent that died left. Nil when the engine runs no
// commands on its machine.
func newShells(ctx context.Context, e Engine, log *slog.Logger) *shells {
	m, ok := e.(shelled)
	if !ok {
		return nil
	}
	s := &shells{engine: e, make: m, log: log, ended: map[string]endedShell{}}
	go func() {
		if err := m.RemoveShells(ctx); err != nil && ctx.Err() == nil {
			log.Debug("shells that were left cannot be removed", "error", err)
		}
	}()
	return s
}

// start runs a command. The caller calls end once its output has ended.
func (s *shells) start(ctx context.Context, r engine.ExecRequest) (x *engine.Exec, container string, err error) {
	container, err = s.make.StartShell(ctx, agentContainer, []string{"/docker-clocker", EnterCommand})
	if err != nil {
		return nil, "", err
	}
	enter := []string{"/docker-clocker", EnterCommand}
	if r.WorkDir != "" {
		enter = append(enter, "--workdir", r.WorkDir)
		r.WorkDir = ""
	}
	if r.User != "" {
		enter = append(enter, "--user", r.User)
		r.User = ""
	}
	r.Cmd = append(append(enter, "--"), r.Cmd...)
	x, err = s.engine.Exec(ctx, container, r)
	if err != nil {
		s.remove(ctx, container)
		return nil, "", err
	}
	return x, container, nil
}

// end remembers how a command ended and removes its container.
func (s *shells) end(ctx context.Context, exec, container string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	state, err := s.engine.ExecState(ctx, exec)
	if err != nil || state.Running {
		// Its caller went away: nobody asks how it ended.
		s.log.Debug("command on the host is cut off", "exec", exec, "error", err)
	} else {
		s.mu.Lock()
		for id, e := range s.ended {
			if time.Since(e.at) > endedKept {
				delete(s.ended, id)
			}
		}
		s.ended[exec] = endedShell{api.ExecState(state), time.Now()}
		s.mu.Unlock()
	}
	s.remove(ctx, container)
}

func (s *shells) remove(ctx context.Context, container string) {
	if err := s.engine.Remove(context.WithoutCancel(ctx), container); err != nil {
		s.log.Warn("container of a command on the host stays until the agent starts again", "container", container, "error", err)
	}
}

func (s *shells) state(ctx context.Context, exec string) (api.ExecState, error) {
	s.mu.Lock()
	e, ok := s.ended[exec]
	s.mu.Unlock()
	if ok {
		return e.state, nil
	}
	st, err := s.engine.ExecState(ctx, exec)
	return api.ExecState(st), err
}

// hostRoutes are what is about the host itself.
func (h *handler) hostRoutes(m *http.ServeMux) {
	m.HandleFunc("GET /host/logs", h.hostLogs)
	m.HandleFunc("POST /host/exec", h.hostExec)
	m.HandleFunc("POST /host/engine", h.hostEngine)
	m.HandleFunc("GET /host/exec/{exec}", h.hostExecState)
	m.HandleFunc("POST /host/exec/{exec}/resize", h.hostExecResize)
}

func (h *handler) hostExec(w http.ResponseWriter, r *http.Request) {
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
	ctx := context.WithoutCancel(r.Context()) // hijacking ends the request's
	x, container, err := h.shells.start(ctx, engine.ExecRequest(req))
	if err != nil {
		refuse(w, codeOf(err), err)
		return
	}
	// The caller asks how the command ended once its output has.
	h.converse(w, x, req.TTY, func() { h.shells.end(ctx, x.ID, container) })
}

// hostEngine joins the caller to the engine's API.
func (h *handler) hostEngine(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		refuse(w, http.StatusUpgradeRequired, errors.New("the connection must be upgraded (Upgrade: tcp)"))
		return
	}
	conn, err := h.shells.make.Dial(r.Context())
	if err != nil {
		refuse(w, http.StatusServiceUnavailable, err)
		return
	}
	h.converse(w, engine.NewExec("", conn, bufio.NewReader(conn)), true, func() {})
}

func (h *handler) hostExecState(w http.ResponseWriter, r *http.Request) {
	s, err := h.shells.state(r.Context(), r.PathValue("exec"))
	if err != nil {
		refuse(w, codeOf(err), err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s) // a client that is gone reads nothing
}

func (h *handler) hostExecResize(w http.ResponseWriter, r *http.Request) {
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
