package api

import (
	"context"
	"net/http"
)

// PlacementBackend is what a controller says of placement behind the API.
type PlacementBackend interface {
	// Placement explains an application's services; an empty service means
	// all.
	Placement(ctx context.Context, app, service string) ([]ServicePlacement, error)
	PlacementPolicy(ctx context.Context) (PlacementPolicy, error)
	SetPlacementPolicy(ctx context.Context, p PlacementPolicy) (PlacementPolicy, error)
}

// placementPaths serves what is about placement.
func placementPaths(b PlacementBackend, read, lead registration) {
	read("GET /v1/applications/{app}/placement", func(w http.ResponseWriter, r *http.Request) error {
		return answer(w)(b.Placement(r.Context(), r.PathValue("app"), r.URL.Query().Get("service")))
	})
	read("GET /v1/policy/placement", func(w http.ResponseWriter, r *http.Request) error {
		return answer(w)(b.PlacementPolicy(r.Context()))
	})
	lead("PUT /v1/policy/placement", taking(b.SetPlacementPolicy))
}
