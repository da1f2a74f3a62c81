package testbed

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// frontMain runs on the hub. It answers the hosts' DNS questions and stands in
// for Docker Hub and other registries, on HTTPS, by handing requests on to the
// hub's registry.
func frontMain(args []string) error {
	if len(args) != 1 {
		return errors.New("run front: needs the hub's address")
	}
	addr, err := netip.ParseAddr(args[0])
	if err != nil {
		return fmt.Errorf("run front: %w", err)
	}
	failed := make(chan error)
	answer := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { answerDNS(w, q, addr) })
	for _, network := range []string{"udp", "tcp"} {
		srv := &dns.Server{Addr: netip.AddrPortFrom(addr, 53).String(), Net: network, Handler: answer}
		go func() { failed <- srv.ListenAndServe() }()
	}
	registry := &url.URL{Scheme: "http", Host: netip.AddrPortFrom(addr, registryPort).String()}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(registry)
		r.SetXForwarded() // so that upload locations come back with our name
		r.Out.Host = r.In.Host
	}}
	web := &http.Server{Addr: netip.AddrPortFrom(addr, 443).String(), Handler: proxy}
	go func() {
		failed <- web.ListenAndServeTLS(filepath.Join(hubTLS, "cert.pem"), filepath.Join(hubTLS, "key.pem"))
	}()
	return fmt.Errorf("run front: %w", <-failed)
}

// answerDNS knows the testbed's machines and the registries the hub stands in
// for. Anything else does not exist, which is said at once.
func answerDNS(w dns.ResponseWriter, q *dns.Msg, hub netip.Addr) {
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable = true
	if len(q.Question) == 1 {
		question := q.Question[0]
		addr, ok := testbedName(strings.TrimSuffix(strings.ToLower(question.Name), "."), hub)
		switch {
		case !ok:
			m.Rcode = dns.RcodeNameError
		case question.Qtype == dns.TypeA:
			m.Answer = append(m.Answer, &dns.A{
				Hdr: dns.RR_Header{Name: question.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 5},
				A:   addr.AsSlice(),
			})
		}
	}
	if err := w.WriteMsg(m); err != nil {
		fmt.Fprintf(os.Stderr, "answer DNS: %v\n", err) // whoever asked will ask again
	}
}

func testbedName(name string, hub netip.Addr) (netip.Addr, bool) {
	subnet := netip.PrefixFrom(hub, 24).Masked().String()
	switch {
	case name == hubName || slices.Contains(hubRegistries, name):
		return hub, true
	case name == machineName:
		return octet(subnet, machineOctet), true
	}
	if n, err := strconv.Atoi(strings.TrimPrefix(name, "h")); err == nil && name == hostName(n) && n >= 1 && n <= MaxHosts {
		return octet(subnet, byte(firstHostOctet+n-1)), true
	}
	return netip.Addr{}, false
}

func hostName(n int) string { return "h" + strconv.Itoa(n) }
