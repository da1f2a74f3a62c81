package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"

	"clocker.io/clocker/netplugin/carrier"
	"clocker.io/clocker/netplugin/policy"
	"clocker.io/clocker/netplugin/server"
	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/pkg/finding"
	"clocker.io/clocker/pkg/hostview"
)

// Socket is where the plugin answers, below the host's state directory.
const Socket = hostview.Socket

// Topology is what is known of the fleet's networks.
type Topology interface {
	Read(func(t *topology.Topology, k topology.Knowledge))
}

// Filter is the packet filter; see [policy.Table].
type Filter interface {
	State() policy.State
}

// Kernel is what is asked of the kernel; a [netlink.Handle] is one.
type Kernel interface {
	LinkByName(name string) (netlink.Link, error)
	LinkByIndex(index int) (netlink.Link, error)
	RouteGetWithOptions(destination net.IP, o *netlink.RouteGetOptions) ([]netlink.Route, error)
}

// Config is what a [Server] answers from.
type Config struct {
	// Host is this host's id, Version the program's.
	Host, Version string
	Topology      Topology
	Filter        Filter
	Kernel        Kernel
	// Carriers are by name, as segments have them.
	Carriers map[string]carrier.Carrier
	// Applied waits until services lead where etcd says at a revision; nil
	// where nothing has to be waited for.
	Applied func(ctx context.Context, revision int64) error
	// Checkers are the parts that can compare what is with what must be.
	Checkers []finding.Checker
	Log      *slog.Logger
}

// Server answers questions about the host.
type Server struct{ Config }

// New returns a server; see [Server.Run].
func New(c Config) *Server { return &Server{c} }

// Checkers are those of a program's parts that can be asked what is wrong.
func Checkers(parts ...any) []finding.Checker {
	var all []finding.Checker
	for _, p := range parts {
		if c, ok := p.(finding.Checker); ok {
			all = append(all, c)
		}
	}
	return all
}

// retry is the wait after a socket that could not be opened.
const retry = 5 * time.Second

// Run answers on the socket until ctx ends. A socket that cannot be opened
// keeps nobody from using the networks: it is tried again.
func (s *Server) Run(ctx context.Context, path string) error {
	for {
		err := s.serve(ctx, path)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.Log.Warn("questions about this host are not answered, trying again", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retry):
		}
	}
}

func (s *Server) serve(ctx context.Context, path string) error {
	l, err := server.Listen(path)
	if err != nil {
		return err
	}
	srv := &http.Server{
		Handler: s.Handler(), ReadHeaderTimeout: 5 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return errors.Join(err, l.Close())
	}
	return nil
}

// maxBody bounds a question.
const maxBody = 64 << 10

// Handler answers the paths of package hostview.
func (s *Server) Handler() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET "+hostview.PathReport, func(w http.ResponseWriter, _ *http.Request) { reply(w, s.report()) })
	m.HandleFunc("POST "+hostview.PathCheck, func(w http.ResponseWriter, r *http.Request) {
		var q hostview.CheckRequest
		if read(w, r, &q) {
			reply(w, s.check(q.Fix))
		}
	})
	m.HandleFunc("POST "+hostview.PathTrace, func(w http.ResponseWriter, r *http.Request) {
		var q hostview.Question
		if !read(w, r, &q) {
			return
		}
		if !q.From.IsValid() || !q.To.IsValid() {
			refuse(w, http.StatusBadRequest, errors.New("a question needs two addresses"))
			return
		}
		reply(w, s.view(q))
	})
	m.HandleFunc("GET "+hostview.PathApplied, s.applied)
	return m
}

// appliedTime bounds how long is waited for a revision.
const appliedTime = time.Second

func (s *Server) applied(w http.ResponseWriter, r *http.Request) {
	revision, err := strconv.ParseInt(r.URL.Query().Get("revision"), 10, 64)
	if err != nil {
		refuse(w, http.StatusBadRequest, errors.New("revision must be a number"))
		return
	}
	if s.Applied != nil {
		ctx, cancel := context.WithTimeout(r.Context(), appliedTime)
		defer cancel()
		if err := s.Applied(ctx, revision); err != nil {
			refuse(w, http.StatusGatewayTimeout, fmt.Errorf("wait for revision %d: %w", revision, err))
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

func read(w http.ResponseWriter, r *http.Request, into any) bool {
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(into)
	if err != nil {
		refuse(w, http.StatusBadRequest, fmt.Errorf("read question: %w", err))
	}
	return err == nil
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // who asked is gone
}

func refuse(w http.ResponseWriter, code int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": err.Error()}) // who asked is gone
}

// check asks every part, one after the other: what one mends another may rest
// on. One that cannot look is a finding.
func (s *Server) check(fix bool) []finding.Finding {
	found := []finding.Finding{}
	for _, c := range s.Checkers {
		fs, err := c.Check(fix)
		for _, f := range fs {
			if !slices.Contains(found, f) { // one part may look through another
				found = append(found, f)
			}
		}
		if err != nil {
			found = append(found, finding.Finding{
				Part: "plugin", Subject: fmt.Sprintf("%T", c), Text: "cannot look: " + err.Error(), Hint: "look at the plugin's log on the host",
			})
		}
	}
	return found
}
