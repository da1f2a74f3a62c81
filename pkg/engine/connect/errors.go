package connect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
)

// Kind says why an engine cannot be used.
type Kind string

// The kinds of [Error].
const (
	// Invalid is an endpoint that is none, or names a context there is not.
	Invalid Kind = "invalid endpoint"
	// Insecure is plain tcp to another machine, or TLS without verification.
	Insecure Kind = "insecure"
	// Credentials are the user's own files: missing, unreadable, wrong.
	Credentials Kind = "credentials"
	// Unresolved is a host name that has no address.
	Unresolved Kind = "unresolved name"
	// Refused means that nothing listens there.
	Refused Kind = "refused"
	// NoRoute means that the network does not lead there.
	NoRoute Kind = "no route"
	// Timeout means that nothing answered in time.
	Timeout Kind = "timeout"
	// Permission means that the user may not open the engine's socket.
	Permission Kind = "permission"
	// Certificate is an engine whose certificate cannot be trusted.
	Certificate Kind = "certificate"
	// ClientCertificate means that the engine refuses the user's.
	ClientCertificate Kind = "client certificate"
	// NotTLS is an engine that does not speak TLS where TLS was wanted, and
	// PlainToTLS the other way round.
	NotTLS     Kind = "no TLS"
	PlainToTLS Kind = "TLS wanted"
	// SSHAuth means that the SSH server accepts none of the user's keys.
	SSHAuth Kind = "SSH authentication"
	// NotSSH is something that listens and is no SSH server.
	NotSSH Kind = "no SSH server"
	// HostKeyUnknown and HostKeyChanged are SSH servers that are not, or not
	// with this key, in known_hosts.
	HostKeyUnknown Kind = "unknown host key"
	HostKeyChanged Kind = "changed host key"
	// Forbidden means that the SSH server forwards no sockets.
	Forbidden Kind = "forwarding forbidden"
	// NoEngine means that the machine answers but no engine does.
	NoEngine Kind = "no engine"
	// TooOld is an engine before Docker 20.10.
	TooOld Kind = "engine too old"
	// Other is everything else.
	Other Kind = "other"
)

// Error says why an engine cannot be used, and what to do about it.
type Error struct {
	Kind     Kind
	Endpoint string
	// Text says what happened and Remedy what to do; the latter may have
	// several lines, or be empty.
	Text   string
	Remedy string
	// Err is the reason underneath; may be nil.
	Err error
}

// Error renders endpoint, text and remedy.
func (e *Error) Error() string {
	s := "connect " + e.Endpoint + ": " + e.Text
	if e.Remedy != "" {
		s += ": " + e.Remedy
	}
	return s
}

// Unwrap returns the reason underneath.
func (e *Error) Unwrap() error { return e.Err }

// IsKind reports whether an error is an [Error] of the given kind.
func IsKind(err error, k Kind) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == k
}

// network explains an error of a dial to host:port, or to a socket's path.
func network(endpoint, address, what string, err error) *Error {
	e := &Error{Kind: Other, Endpoint: endpoint, Err: err}
	var dns *net.DNSError
	var timeout net.Error
	host, port, splitErr := net.SplitHostPort(address)
	if splitErr != nil {
		host, port = address, ""
	}
	switch {
	case errors.As(err, &dns):
		e.Kind, e.Text = Unresolved, fmt.Sprintf("the name %s has no address", dns.Name)
		e.Remedy = "check its spelling, or use the address"
	case errors.Is(err, syscall.ECONNREFUSED) && port == "":
		e.Kind, e.Text = NoEngine, "nothing listens on "+address
		e.Remedy = "is the Docker Engine running? (systemctl start docker)"
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Kind, e.Text = Refused, fmt.Sprintf("%s refuses connections on port %s", host, port)
		e.Remedy = fmt.Sprintf("is %s running there, and on that port?", what)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTDOWN):
		e.Kind, e.Text = NoRoute, "there is no route to "+host
		e.Remedy = "is the machine up, and does this network lead to it?"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		e.Kind, e.Text = Timeout, address+" does not answer"
		e.Remedy = "is the machine up, and is a firewall in between?"
	case errors.Is(err, fs.ErrPermission):
		e.Kind, e.Text = Permission, "this user may not open "+address
		e.Remedy = "run as root or as a member of the group docker"
	case errors.Is(err, fs.ErrNotExist):
		e.Kind, e.Text = NoEngine, "there is no "+address
		e.Remedy = "is the Docker Engine installed and running here?"
	default:
		e.Text = err.Error()
	}
	return e
}

// request explains an error of the first request to an engine.
func request(endpoint string, err error) *Error {
	e := &Error{Kind: Other, Endpoint: endpoint, Err: err}
	s := err.Error()
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		e.Kind, e.Text = Timeout, "the engine took the connection and does not answer"
		e.Remedy = "look at the engine's log there"
	case strings.Contains(s, "HTTP request to an HTTPS server"):
		e.Kind, e.Text = PlainToTLS, "the engine wants TLS"
		e.Remedy = "name the directory of ca.pem, cert.pem and key.pem with --tls-cert-dir or DOCKER_CERT_PATH"
	case errors.Is(err, io.EOF), strings.Contains(s, "EOF"), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		e.Kind, e.Text = NoEngine, "something answers, but it is not a Docker Engine: it closed the connection"
		e.Remedy = "check the port"
	case errdefs.IsPermissionDenied(err), errdefs.IsUnauthorized(err):
		e.Kind, e.Text = Permission, "the engine refuses: "+s
		e.Remedy = "ask whoever runs it (an authorization plugin decides there)"
	case errdefs.IsNotFound(err), errdefs.IsInvalidArgument(err):
		e.Kind, e.Text = NoEngine, "something answers HTTP there, but it is not a Docker Engine: "+s
		e.Remedy = "check the port"
	case strings.Contains(s, "malformed HTTP"):
		e.Kind, e.Text = NoEngine, "something answers, but it is not a Docker Engine"
		e.Remedy = "check the port"
	default:
		e.Text = s
	}
	return e
}
