package api

import (
	"context"
	"net/http"
)

// ScaleBackend is what a controller does about the number of hosts behind the
// API.
type ScaleBackend interface {
	Headroom(ctx context.Context) (Headroom, error)
	SetHeadroom(ctx context.Context, r HeadroomRequest) (Headroom, error)
	RemoveHeadroom(ctx context.Context) error
	Providers(ctx context.Context) ([]Provider, error)
	Provider(ctx context.Context, name string) (Provider, error)
	AddProvider(ctx context.Context, r ProviderRequest) (Provider, error)
	RemoveProvider(ctx context.Context, name string) error
	Machines(ctx context.Context) ([]Machine, error)
	ReleaseMachine(ctx context.Context, name string) (Machine, error)
}

// scalePaths serves what is about the number of hosts. Who asks for headroom
// asks the leader, who decides about it.
func scalePaths(b ScaleBackend, read, lead registration) {
	lead("GET /v1/headroom", func(w http.ResponseWriter, r *http.Request) error { return answer(w)(b.Headroom(r.Context())) })
	lead("PUT /v1/headroom", taking(b.SetHeadroom))
	lead("DELETE /v1/headroom", func(w http.ResponseWriter, r *http.Request) error {
		return answer(w)(struct{}{}, b.RemoveHeadroom(r.Context()))
	})
	read("GET /v1/providers", func(w http.ResponseWriter, r *http.Request) error { return answer(w)(b.Providers(r.Context())) })
	read("GET /v1/providers/{provider}", func(w http.ResponseWriter, r *http.Request) error {
		return answer(w)(b.Provider(r.Context(), r.PathValue("provider")))
	})
	lead("POST /v1/providers", taking(b.AddProvider))
	lead("DELETE /v1/providers/{provider}", func(w http.ResponseWriter, r *http.Request) error {
		return answer(w)(struct{}{}, b.RemoveProvider(r.Context(), r.PathValue("provider")))
	})
	read("GET /v1/machines", func(w http.ResponseWriter, r *http.Request) error { return answer(w)(b.Machines(r.Context())) })
	lead("DELETE /v1/machines/{machine}", func(w http.ResponseWriter, r *http.Request) error {
		return answer(w)(b.ReleaseMachine(r.Context(), r.PathValue("machine")))
	})
}
