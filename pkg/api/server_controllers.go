package api

import (
	"context"
	"io"
	"net/http"
)

// ControllerBackend is what a controller does about its fellows and about the
// fleet's state as a whole.
type ControllerBackend interface {
	Controllers(ctx context.Context) ([]Controller, error)
	Controller(ctx context.Context, name string) (Controller, error)
	AddController(ctx context.Context, r ControllerRequest) (ControllerPlace, error)
	RemoveController(ctx context.Context, name string, force bool) error
	// Snapshot opens a snapshot of etcd as it is now.
	Snapshot(ctx context.Context) (io.ReadCloser, error)
	Restored(ctx context.Context) ([]RestoredHost, error)
	// Settle ends what a restore holds back, on every host.
	Settle(ctx context.Context) error
}

// controllerPaths serves what is about controllers and the state as a whole.
// A snapshot is no GET: it has every secret that is in etcd.
func controllerPaths(b ControllerBackend, read, lead registration) {
	read("GET /v1/controllers", func(w http.ResponseWriter, r *http.Request) error { return answer(w)(b.Controllers(r.Context())) })
	read("GET /v1/controllers/{controller}", func(w http.ResponseWriter, r *http.Request) error {
		return answer(w)(b.Controller(r.Context(), r.PathValue("controller")))
	})
	lead("POST /v1/controllers", taking(b.AddController))
	lead("DELETE /v1/controllers/{controller}", func(w http.ResponseWriter, r *http.Request) error {
		return answer(w)(struct{}{}, b.RemoveController(r.Context(), r.PathValue("controller"), r.URL.Query().Get("force") == "1"))
	})
	read("POST /v1/snapshot", func(w http.ResponseWriter, r *http.Request) error {
		s, err := b.Snapshot(r.Context())
		if err != nil {
			return err
		}
		defer func() { _ = s.Close() }() // read only
		w.Header().Set("Content-Type", "application/octet-stream")
		if _, err := io.Copy(w, s); err != nil {
			// Cut off, so that it cannot be taken for whole.
			panic(http.ErrAbortHandler)
		}
		return nil
	})
	read("GET /v1/restored", func(w http.ResponseWriter, r *http.Request) error { return answer(w)(b.Restored(r.Context())) })
	lead("DELETE /v1/restored", func(w http.ResponseWriter, r *http.Request) error {
		return answer(w)(struct{}{}, b.Settle(r.Context()))
	})
}
