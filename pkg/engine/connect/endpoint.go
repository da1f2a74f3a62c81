package connect

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/docker/cli/cli/context/docker"
)

// ContextPrefix starts an endpoint that names a docker context.
const ContextPrefix = "context:"

// DefaultSocket is where an engine listens unless told otherwise.
const DefaultSocket = "/var/run/docker.sock"

// HostOf returns the name or address of the machine that an endpoint names,
// without asking anybody: empty for this machine and for contexts.
func HostOf(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "tcp" && u.Scheme != "ssh" {
		return ""
	}
	return u.Hostname()
}

// resolve finds out what an endpoint means. The name it returns is what to
// call the engine by later.
func resolve(endpoint string, o Options) (*transport, string, *Error) {
	switch {
	case endpoint == "" && o.Contexts == nil:
		endpoint = o.Getenv("DOCKER_HOST")
		if endpoint == "" {
			endpoint = "unix://" + DefaultSocket
		}
	case endpoint == "":
		name := o.Contexts.CurrentContext()
		if name == "" || name == "default" {
			ep := o.Contexts.DockerEndpoint()
			return fromDocker(ep.Host, ep, o)
		}
		endpoint = ContextPrefix + name
	}
	if name, ok := strings.CutPrefix(endpoint, ContextPrefix); ok {
		ep, problem := contextEndpoint(endpoint, name, o)
		if problem != nil {
			return nil, "", problem
		}
		return fromDocker(endpoint, ep, o)
	}
	t, problem := parse(endpoint, endpoint, o, nil)
	return t, endpoint, problem
}

func contextEndpoint(endpoint, name string, o Options) (docker.Endpoint, *Error) {
	bad := func(text string, err error) *Error {
		return &Error{Kind: Invalid, Endpoint: endpoint, Text: text, Remedy: "docker context ls shows what there is", Err: err}
	}
	if name == "" {
		return docker.Endpoint{}, bad("no context is named", nil)
	}
	if o.Contexts == nil {
		return docker.Endpoint{}, bad("docker contexts are not known here", nil)
	}
	if name == "default" && o.Contexts.CurrentContext() == "default" {
		return o.Contexts.DockerEndpoint(), nil
	}
	s := o.Contexts.ContextStore()
	meta, err := s.GetMetadata(name)
	if err != nil {
		return docker.Endpoint{}, bad(fmt.Sprintf("there is no docker context %q", name), err)
	}
	m, err := docker.EndpointFromContext(meta)
	if err != nil {
		return docker.Endpoint{}, bad("the context has no Docker Engine", err)
	}
	ep, err := docker.WithTLSData(s, name, m)
	if err != nil {
		return docker.Endpoint{}, bad("the context's TLS files cannot be read", err)
	}
	return ep, nil
}

func fromDocker(name string, ep docker.Endpoint, o Options) (*transport, string, *Error) {
	host := ep.Host
	if host == "" {
		host = "unix://" + DefaultSocket
	}
	if name == "" {
		name = host
	}
	var t *tls.Config
	if ep.TLSData != nil {
		var problem *Error
		if t, problem = tlsFromData(name, ep.TLSData.CA, ep.TLSData.Cert, ep.TLSData.Key); problem != nil {
			return nil, "", problem
		}
	}
	if ep.SkipTLSVerify && !loopback(HostOf(host)) && HostOf(host) != "" && !strings.HasPrefix(host, "ssh://") {
		return nil, "", &Error{
			Kind: Insecure, Endpoint: name,
			Text:   "the context does not verify the engine's certificate, so it may be anybody's",
			Remedy: "docker context update --docker with a ca=FILE and without skip-tls-verify",
		}
	}
	tr, problem := parse(name, host, o, t)
	return tr, name, problem
}

// parse turns an address into a transport. A nil TLS configuration leaves it
// to the options.
func parse(name, address string, o Options, t *tls.Config) (*transport, *Error) {
	bad := func(text string) *Error {
		return &Error{
			Kind: Invalid, Endpoint: name, Text: text,
			Remedy: "write unix:///PATH, tcp://HOST:PORT, ssh://[USER@]HOST[:PORT] or context:NAME",
		}
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, bad("not an endpoint")
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return nil, bad("an endpoint has no query and no fragment")
	}
	switch u.Scheme {
	case "unix":
		if u.Host != "" || !strings.HasPrefix(u.Path, "/") {
			return nil, bad("the socket's path must be absolute")
		}
		return unixTransport(name, u.Path), nil
	case "tcp":
		if u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" {
			return nil, bad("tcp:// takes a host and a port")
		}
		if t == nil {
			var problem *Error
			if t, problem = tlsFromOptions(name, o); problem != nil {
				return nil, problem
			}
		}
		port := u.Port()
		if port == "" {
			port = "2376"
			if t == nil {
				port = "2375"
			}
		}
		if t == nil && !loopback(u.Hostname()) {
			return nil, &Error{
				Kind: Insecure, Endpoint: name,
				Text:   "plain tcp would hand the machine to anybody on the way",
				Remedy: "name the directory of ca.pem, cert.pem and key.pem with --tls-cert-dir or DOCKER_CERT_PATH, or use ssh://",
			}
		}
		return tcpTransport(name, u.Hostname(), net.JoinHostPort(u.Hostname(), port), t), nil
	case "ssh":
		if u.Hostname() == "" {
			return nil, bad("ssh:// takes a host")
		}
		if _, set := u.User.Password(); set {
			return nil, bad("an endpoint holds no password: keys are used")
		}
		return sshTransport(name, u, o)
	case "":
		return nil, bad("not an endpoint")
	default:
		return nil, bad(fmt.Sprintf("%s:// is not spoken", u.Scheme))
	}
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
