package api

import (
	"context"
	"net/http"
)

// CABackend is what a controller does about the fleet's authority.
type CABackend interface {
	CA(ctx context.Context) (CA, error)
	ChangeCA(ctx context.Context, r CARequest) (CA, error)
}

func caPaths(b CABackend, read, lead registration) {
	read("GET /v1/ca", func(w http.ResponseWriter, r *http.Request) error { return answer(w)(b.CA(r.Context())) })
	lead("POST /v1/ca", taking(b.ChangeCA))
}
