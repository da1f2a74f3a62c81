package api

import (
	"context"
	"net/http"
)

// HostBackend is what a controller does about hosts behind the API, besides
// taking them in and out.
type HostBackend interface {
	LabelHost(ctx context.Context, host string, change LabelChange) (Host, error)
	// HostAgent serves a request about a host through its agent.
	HostAgent(host string, w http.ResponseWriter, r *http.Request)
}

func hostPaths(b HostBackend, read, lead registration) {
	lead("POST /v1/hosts/{host}/labels", func(w http.ResponseWriter, r *http.Request) error {
		var change LabelChange
		if err := decode(w, r, &change); err != nil {
			return err
		}
		return answer(w)(b.LabelHost(r.Context(), r.PathValue("host"), change))
	})
	agent := func(w http.ResponseWriter, r *http.Request) error { b.HostAgent(r.PathValue("host"), w, r); return nil }
	read("GET /v1/hosts/{host}/logs", agent)
	read("POST /v1/hosts/{host}/exec", agent)
	read("POST /v1/hosts/{host}/engine", agent)
	read("GET /v1/hosts/{host}/exec/{exec}", agent)
	read("POST /v1/hosts/{host}/exec/{exec}/resize", agent)
}
