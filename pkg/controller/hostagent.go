package controller

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/tunnel"
)

// HostAgent implements [api.Backend]: what is asked of a host's own goes
// through the tunnel of its agent, which knows it as "/host".
func (c *Controller) HostAgent(host string, w http.ResponseWriter, r *http.Request) {
	fail := func(status int, text string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprintf(w, "{\"message\":%q}\n", text)
	}
	id := c.findHost(host)
	if id == "" {
		fail(http.StatusNotFound, "there is no host "+host+" (docker clocker host ls shows them)")
		return
	}
	p := &httputil.ReverseProxy{
		Transport:     c.calls.Transport(id),
		FlushInterval: -1,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: "agent"})
			p.Out.URL.Path = strings.Replace(p.In.URL.Path, api.Version+"/hosts/"+r.PathValue("host"), "/host", 1)
			p.Out.URL.RawPath = ""
			p.Out.Host = "agent"
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) {
			why := err.Error()
			if errors.Is(err, tunnel.ErrNoTunnel) {
				why = "it is not connected to the controllers"
			}
			fail(http.StatusBadGateway, fmt.Sprintf("the agent of host %s does not answer: %s", host, why))
		},
	}
	p.ServeHTTP(w, r)
}
