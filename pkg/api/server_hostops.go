package api

import (
	"context"
	"net/http"
	"strconv"
)

// HostWorkBackend is what a controller does behind the API about the work that
// hosts have.
type HostWorkBackend interface {
	CordonHost(ctx context.Context, host string) (Host, error)
	EnableHost(ctx context.Context, host string) (Host, error)
	PlanDrain(ctx context.Context, host string) (DrainPlan, error)
	DrainHost(ctx context.Context, host string, send func(Progress) error) error
	// PlanRebalance and Rebalance move at most so many replicas; 0 means as many
	// as it takes.
	PlanRebalance(ctx context.Context, most int) ([]PlannedMove, error)
	Rebalance(ctx context.Context, most int, send func(Progress) error) error
}

func hostWorkPaths(b HostWorkBackend, read, lead registration) {
	lead("POST /v1/hosts/{host}/cordon", func(w http.ResponseWriter, r *http.Request) error {
		return answer(w)(b.CordonHost(r.Context(), r.PathValue("host")))
	})
	lead("POST /v1/hosts/{host}/enable", func(w http.ResponseWriter, r *http.Request) error {
		return answer(w)(b.EnableHost(r.Context(), r.PathValue("host")))
	})
	lead("GET /v1/hosts/{host}/drain", func(w http.ResponseWriter, r *http.Request) error {
		return answer(w)(b.PlanDrain(r.Context(), r.PathValue("host")))
	})
	lead("POST /v1/hosts/{host}/drain", func(w http.ResponseWriter, r *http.Request) error {
		return serveStream(w, r, func(send func(Progress) error) error { return b.DrainHost(r.Context(), r.PathValue("host"), send) })
	})
	lead("GET /v1/rebalance", func(w http.ResponseWriter, r *http.Request) error {
		most, err := mostOf(r)
		if err != nil {
			return err
		}
		return answer(w)(b.PlanRebalance(r.Context(), most))
	})
	lead("POST /v1/rebalance", func(w http.ResponseWriter, r *http.Request) error {
		most, err := mostOf(r)
		if err != nil {
			return err
		}
		return serveStream(w, r, func(send func(Progress) error) error { return b.Rebalance(r.Context(), most, send) })
	})
}

func mostOf(r *http.Request) (int, error) {
	text := r.URL.Query().Get("max")
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, &CallError{Status: http.StatusBadRequest, Body: Error{Message: "max must be a number of moves"}}
	}
	return n, nil
}
