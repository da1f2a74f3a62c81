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

// frontArgs are the arguments of frontMain after the program: the hub's address
// on each link, that on the first link first.
func frontArgs(s *state) []string {
	args := []string{"/proc/self/exe"}
	for _, l := range s.links() {
		args = append(args, octet(l.Subnet, hubOctet).String())
	}
	return args
}

// frontMain runs on the hub. It answers the hosts' DNS questions and stands in
// for Docker Hub and other registries, on HTTPS, by handing requests on to the
// hub's registry.
func frontMain(args []string) error {
	if len(args) == 0 {
		return errors.New("run front: needs the hub's addresses")
	}
	var addrs []netip.Addr
	for _, arg := range args {
		addr, err := netip.ParseAddr(arg)
		if err != nil {
			return fmt.Errorf("run front: %w", err)
		}
		addrs = append(addrs, addr)
	}
	addr := addrs[0]
	failed := make(chan error)
	answer := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { answerDNS(w, q, addrs) })
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
func answerDNS(w dns.ResponseWriter, q *dns.Msg, hub []netip.Addr) {
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

// testbedName looks a name up; hub are the hub's addresses, one on each link.
func testbedName(name string, hub []netip.Addr) (netip.Addr, bool) {
	subnet := func(n int) string { return netip.PrefixFrom(hub[(n-1)%len(hub)], 24).Masked().String() }
	switch {
	case name == hubName || slices.Contains(hubRegistries, name):
		return hub[0], true
	case name == machineName:
		return octet(subnet(1), machineOctet), true
	}
	if n, err := strconv.Atoi(strings.TrimPrefix(name, "h")); err == nil && name == hostName(n) && n >= 1 && n <= MaxHosts {
		return octet(subnet(n), byte(firstHostOctet+n-1)), true
	}
	return netip.Addr{}, false
}

func hostName(n int) string { return "h" + strconv.Itoa(n) }
