package api

import (
	"context"
	"net/http"

	"clocker.io/clocker/pkg/finding"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/trace"
)

// NetworkBackend is what a controller does about networks behind the API.
type NetworkBackend interface {
	Networks(ctx context.Context) ([]Network, error)
	Network(ctx context.Context, name string) (NetworkDetail, error)
	CreateNetwork(ctx context.Context, r NetworkRequest) (NetworkChange, error)
	RemoveNetwork(ctx context.Context, name string) (NetworkChange, error)
	AttachHost(ctx context.Context, network, host string) (Attachment, error)
	DetachHost(ctx context.Context, network, host string) error
	Rules(ctx context.Context) ([]Rule, error)
	AddRule(ctx context.Context, r RuleRequest) (Rule, error)
	RemoveRule(ctx context.Context, id string) error
	Pools(ctx context.Context) ([]Pool, error)
	Pool(ctx context.Context, name string) (PoolDetail, error)
	AddPool(ctx context.Context, p record.Pool) (Pool, error)
	RemovePool(ctx context.Context, name string) error
	CheckPool(ctx context.Context, name string) ([]finding.Finding, error)
	Doctor(ctx context.Context, r DoctorRequest) (DoctorReport, error)
	Trace(ctx context.Context, q trace.Query) (trace.Result, error)
}

// registration adds a path to the API.
type registration func(pattern string, h func(http.ResponseWriter, *http.Request) error)

// networkPaths serves what is about networks. Who asks hosts asks through the
// leader: every host has a tunnel to it, or it would not lead for long.
func networkPaths(b NetworkBackend, read, lead registration) {
	read("GET /v1/networks", func(w http.ResponseWriter, r *http.Request) error {
		all, err := b.Networks(r.Context())
		return answer(w)(visible(r, all, func(n Network) string { return n.App }), err)
	})
	read("GET /v1/networks/{net}", func(w http.ResponseWriter, r *http.Request) error {
		n, err := b.Network(r.Context(), r.PathValue("net"))
		if app := n.Network.App; err == nil && app != "" && !CallerOf(r.Context()).Sees(app) {
			return forbidden(CallerOf(r.Context()), record.RoleRead, app)
		}
		n.InUse = visible(r, n.InUse, func(e NetworkEndpoint) string { return e.App })
		return answer(w)(n, err)
	})
	lead("POST /v1/networks", taking(b.CreateNetwork))
	lead("DELETE /v1/networks/{net}", func(w http.ResponseWriter, r *http.Request) error {
		return answer(w)(b.RemoveNetwork(r.Context(), r.PathValue("net")))
	})
	lead("PUT /v1/networks/{net}/hosts/{host}", func(w http.ResponseWriter, r *http.Request) error {
		return answer(w)(b.AttachHost(r.Context(), r.PathValue("net"), r.PathValue("host")))
	})
	lead("DELETE /v1/networks/{net}/hosts/{host}", func(w http.ResponseWriter, r *http.Request) error {
		return answer(w)(struct{}{}, b.DetachHost(r.Context(), r.PathValue("net"), r.PathValue("host")))
	})
	read("GET /v1/rules", func(w http.ResponseWriter, r *http.Request) error { return answer(w)(b.Rules(r.Context())) })
	lead("POST /v1/rules", taking(b.AddRule))
	lead("DELETE /v1/rules/{rule}", func(w http.ResponseWriter, r *http.Request) error {
		return answer(w)(struct{}{}, b.RemoveRule(r.Context(), r.PathValue("rule")))
	})
	read("GET /v1/pools", func(w http.ResponseWriter, r *http.Request) error { return answer(w)(b.Pools(r.Context())) })
	read("GET /v1/pools/{pool}", func(w http.ResponseWriter, r *http.Request) error {
		return answer(w)(b.Pool(r.Context(), r.PathValue("pool")))
	})
	read("GET /v1/pools/{pool}/check", func(w http.ResponseWriter, r *http.Request) error {
		return answer(w)(b.CheckPool(r.Context(), r.PathValue("pool")))
	})
	lead("POST /v1/pools", taking(b.AddPool))
	lead("DELETE /v1/pools/{pool}", func(w http.ResponseWriter, r *http.Request) error {
		return answer(w)(struct{}{}, b.RemovePool(r.Context(), r.PathValue("pool")))
	})
	lead("POST /v1/doctor", taking(b.Doctor))
	lead("POST /v1/trace", taking(b.Trace))
}

// taking serves a call that takes one JSON value and gives another.
func taking[Q, A any](f func(context.Context, Q) (A, error)) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		var q Q
		if err := decode(w, r, &q); err != nil {
			return err
		}
		return answer(w)(f(r.Context(), q))
	}
}
