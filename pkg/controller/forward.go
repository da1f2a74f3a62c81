package controller

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"clocker.io/clocker/pkg/fleet/controllerconfig"
)

// fellowDial is how long another controller may take to answer a connect.
const fellowDial = 3 * time.Second

// Leader implements [api.Backend]: requests that change state go to the
// leader.
func (c *Controller) Leader() (http.Handler, error) {
	fence, leader := c.lead.get()
	if fence != nil {
		return nil, nil
	}
	if leader == "" {
		return nil, unavailable("no controller leads at the moment: try again in a few seconds")
	}
	u, err := url.Parse(leader)
	if err != nil {
		return nil, fmt.Errorf("pass request on: %w", err)
	}
	t, err := c.fellowTLS()
	if err != nil {
		return nil, err
	}
	return forward(u, t), nil
}

// unreached marks an error that came before anything was sent.
type unreached struct{ error }

func (e unreached) Unwrap() error { return e.error }

// forward passes requests on to another controller. The caller hears 503, by
// which it may ask again, only when that one has done nothing: when it was not
// reached, or was only asked. Otherwise the caller's connection breaks, as it
// would between it and the leader: what was done is not known.
func forward(to *url.URL, t *tls.Config) http.Handler {
	p := httputil.NewSingleHostReverseProxy(to)
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: fellowDial}, Config: t}
	p.Transport = &http.Transport{
		DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, fellowDial)
			defer cancel()
			conn, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, unreached{err}
			}
			return conn, nil
		},
		// Each request has a transport of its own: nobody would use the
		// connection again, or close it.
		DisableKeepAlives: true,
	}
	p.FlushInterval = -1
	p.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
		if r.Method != http.MethodGet && !errors.As(err, &unreached{}) {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, `{"message":%q}`, "the leading controller does not answer: "+err.Error()) //nolint:errcheck // the caller is gone then
	}
	return p
}

// fellowTLS is what this controller shows to another one.
func (c *Controller) fellowTLS() (*tls.Config, error) {
	server, err := controllerconfig.ServerTLS(c.configDir)
	if err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: server.Certificates, RootCAs: server.ClientCAs, MinVersion: tls.VersionTLS13}, nil
}
