package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"clocker.io/clocker/pkg/finding"
	"clocker.io/clocker/pkg/hostview"
	"clocker.io/clocker/pkg/record"
)

// netRelay answers what controllers ask of the host's networks: it passes
// questions for the network plugin on to the plugin's own socket, and answers
// itself what the engine has.
type netRelay struct {
	engine Engine
	nets   *networks
	socket string
	log    *slog.Logger
}

func newNetRelay(e Engine, nets *networks, stateDir string, log *slog.Logger) *netRelay {
	return &netRelay{engine: e, nets: nets, socket: filepath.Join(stateDir, hostview.Socket), log: log}
}

func (n *netRelay) routes(m *http.ServeMux) {
	plugin := n.plugin()
	for _, path := range []string{"GET " + hostview.AgentPlugin + hostview.PathReport, "POST " + hostview.AgentPlugin + hostview.PathCheck, "POST " + hostview.AgentPlugin + hostview.PathTrace} {
		m.Handle(path, plugin)
	}
	m.HandleFunc("GET "+hostview.AgentNetworks, n.list)
	m.HandleFunc("POST "+hostview.AgentCheck, n.check)
}

// plugin hands requests on to the plugin's socket.
func (n *netRelay) plugin() http.Handler {
	return &httputil.ReverseProxy{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", n.socket)
			},
			DisableKeepAlives: true, // a plugin that was replaced has another socket
		},
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: "plugin"})
			r.Out.URL.Path = strings.TrimPrefix(r.In.URL.Path, hostview.AgentPlugin)
			r.Out.URL.RawPath = ""
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			refuse(w, http.StatusBadGateway, fmt.Errorf("the network plugin of this host does not answer on %s: %w", n.socket, err))
		},
	}
}

func (n *netRelay) list(w http.ResponseWriter, r *http.Request) {
	all, err := n.engineNetworks(r.Context())
	if err != nil {
		refuse(w, codeOf(err), err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(all) // a controller that is gone reads nothing
}

// engineNetworks are the engine's networks of the fleet with who is on them.
func (n *netRelay) engineNetworks(ctx context.Context) ([]hostview.EngineNetwork, error) {
	ns, err := n.engine.Networks(ctx)
	if err != nil {
		return nil, err
	}
	ids := n.nets.ids()
	out := []hostview.EngineNetwork{}
	for _, d := range ns {
		x := hostview.EngineNetwork{ID: d.FleetID, Name: d.Name}
		if x.ID == "" {
			x.ID = ids[d.Name]
		}
		users, err := n.engine.NetworkUsers(ctx, d.ID)
		if err != nil {
			return nil, err
		}
		for _, id := range users {
			c, err := n.engine.Container(ctx, id)
			if isGone(err) {
				continue
			}
			name := c.Name
			if err != nil || name == "" {
				name = id
			}
			x.Containers = append(x.Containers, name)
		}
		slices.Sort(x.Containers)
		out = append(out, x)
	}
	return out, nil
}

// mendTime is how long a check waits for what it has set in motion.
const mendTime = 8 * time.Second

// check compares the engine's networks with the fleet's. With fix the agent
// tries again at once what it has put off, and the check waits for it.
func (n *netRelay) check(w http.ResponseWriter, r *http.Request) {
	var q hostview.CheckRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&q); err != nil {
		refuse(w, http.StatusBadRequest, fmt.Errorf("read request: %w", err))
		return
	}
	found, err := n.differences(r.Context())
	if err == nil && q.Fix && len(found) > 0 {
		found, err = n.mend(r.Context(), found)
	}
	if err != nil {
		refuse(w, codeOf(err), err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(found) // a controller that is gone reads nothing
}

// mend sets everything that was put off in motion, and waits until nothing
// differs any more or it has taken too long.
func (n *netRelay) mend(ctx context.Context, found []finding.Finding) ([]finding.Finding, error) {
	if all, err := n.engine.Networks(ctx); err == nil {
		n.nets.resync(all)
	}
	n.nets.kick()
	limit, cancel := context.WithTimeout(ctx, mendTime)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		left, err := n.differences(ctx)
		if err != nil {
			return nil, err
		}
		for i := range found {
			found[i].Fixed = !slices.ContainsFunc(left, func(f finding.Finding) bool { return f.Subject == found[i].Subject })
		}
		if len(left) == 0 {
			return found, nil
		}
		select {
		case <-limit.Done():
			return found, ctx.Err()
		case <-tick.C:
		}
	}
}

func (n *netRelay) differences(ctx context.Context) ([]finding.Finding, error) {
	here, err := n.engineNetworks(ctx)
	if err != nil {
		return nil, err
	}
	return networkFindings(n.nets.known(), here, n.nets.needed()), nil
}

// needed are the fleet's networks that every engine must have: those that are
// not an application's, which are made with its containers.
func (n *networks) needed() map[string]bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := map[string]bool{}
	for id, r := range n.records {
		if r.App == "" && r.Name != "" {
			out[id] = true
		}
	}
	return out
}

// networkFindings compares the fleet's networks with an engine's.
func networkFindings(fleet []record.Network, here []hostview.EngineNetwork, needed map[string]bool) []finding.Finding {
	out := []finding.Finding{}
	known := map[string]record.Network{}
	for _, r := range fleet {
		known[r.ID] = r
	}
	has := map[string]bool{}
	for _, e := range here {
		has[e.ID] = true
		r, ok := known[e.ID]
		switch {
		case !ok:
			f := finding.Finding{Part: "networks", Subject: e.Name, Text: "the engine has a network that the fleet has not"}
			if len(e.Containers) > 0 {
				f.Hint = "containers are attached to it: " + strings.Join(e.Containers, ", ")
			}
			out = append(out, f)
		case r.Name != "" && r.Name != e.Name:
			out = append(out, finding.Finding{
				Part: "networks", Subject: e.Name, Text: fmt.Sprintf("the engine calls it %s and the fleet %s", e.Name, r.Name),
				Hint: "remove the network on this engine with docker network rm " + e.Name + ": it is made again under the fleet's name",
			})
		}
	}
	for _, r := range fleet {
		if needed[r.ID] && !has[r.ID] {
			out = append(out, finding.Finding{Part: "networks", Subject: r.Name, Text: "the engine does not have this network of the fleet"})
		}
	}
	slices.SortFunc(out, func(a, b finding.Finding) int { return strings.Compare(a.Subject, b.Subject) })
	return out
}
