package connect

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/docker/cli/cli/context/docker"
	"github.com/docker/cli/cli/context/store"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"
	"golang.org/x/crypto/ssh"
)

// MinAPIVersion is the oldest engine API that is spoken: Docker 20.10's.
const MinAPIVersion = "1.41"

// The environment variables that are read besides docker's own.
const (
	EnvKnownHosts = "CLOCKER_SSH_KNOWN_HOSTS"
	EnvIdentity   = "CLOCKER_SSH_IDENTITY"
)

// dialTimeout bounds one try to connect, and answerTimeout the first answer.
const (
	dialTimeout   = 10 * time.Second
	answerTimeout = 20 * time.Second
)

// Contexts is where docker contexts come from; docker/cli's command.Cli is
// one.
type Contexts interface {
	ContextStore() store.Store
	CurrentContext() string
	DockerEndpoint() docker.Endpoint
}

// Options say which of the user's files are used. The zero value takes
// docker's and OpenSSH's usual ones.
type Options struct {
	// CertDir holds ca.pem, cert.pem and key.pem for tcp://; empty means
	// DOCKER_CERT_PATH, or docker's configuration directory when
	// DOCKER_TLS_VERIFY is set.
	CertDir string
	// KnownHosts is the file of SSH host keys; empty means
	// CLOCKER_SSH_KNOWN_HOSTS, else ~/.ssh/config's UserKnownHostsFile, else
	// ~/.ssh/known_hosts, with /etc/ssh/ssh_known_hosts besides.
	KnownHosts string
	// Identity is the private key for ssh://; empty means
	// CLOCKER_SSH_IDENTITY, else ssh-agent, ~/.ssh/config's IdentityFile and
	// ~/.ssh/id_*.
	Identity string
	// HostKey, when not nil, is the only SSH host key that is accepted: no
	// known_hosts is read.
	HostKey ssh.PublicKey
	// Signers, when there are any, are the only keys that are offered, and
	// ~/.ssh/config is not read.
	Signers []ssh.Signer
	// Contexts may be nil: then contexts are refused, and an empty endpoint
	// is DOCKER_HOST or the local socket.
	Contexts Contexts
	// Home is the user's home directory and Getenv the environment; empty
	// and nil mean the process's own.
	Home   string
	Getenv func(string) string
	// Timeout bounds each try to connect; 0 means 10 s.
	Timeout time.Duration
}

func (o Options) withDefaults() Options {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if o.Home == "" {
		// Without a home there are no files of the user's to look at.
		o.Home, _ = os.UserHomeDir()
	}
	if o.KnownHosts == "" {
		o.KnownHosts = o.Getenv(EnvKnownHosts)
	}
	if o.Identity == "" {
		o.Identity = o.Getenv(EnvIdentity)
	}
	if o.Timeout == 0 {
		o.Timeout = dialTimeout
	}
	return o
}

func (o Options) dockerConfigDir() string {
	if d := o.Getenv("DOCKER_CONFIG"); d != "" {
		return d
	}
	return filepath.Join(o.Home, ".docker")
}

// Conn is a connection to an engine that has answered.
type Conn struct {
	// Client speaks the newest API that both sides know.
	Client *client.Client
	// Endpoint is what to call the engine by later: what the user wrote, or
	// context:NAME or the address behind an empty endpoint.
	Endpoint string
	// Host is the name or address of the engine's machine; empty when it is
	// this one.
	Host string
	// APIVersion is the engine's own.
	APIVersion string
	close      func() error
}

// Close ends the connection.
func (c *Conn) Close() error {
	err := c.Client.Close()
	if cerr := c.close(); err == nil {
		err = cerr
	}
	return err
}

// transport is how bytes get to an engine.
type transport struct {
	// url is what the engine's client is told; dial is what really connects.
	url  string
	host string
	tls  *tls.Config
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// check makes a first connection, for the sake of its error.
	check func(ctx context.Context) *Error
	close func() error
}

// Open connects to the engine that endpoint names and waits for its first
// answer. Every error is an [*Error].
func Open(ctx context.Context, endpoint string, o Options) (*Conn, error) {
	o = o.withDefaults()
	t, name, problem := resolve(endpoint, o)
	if problem != nil {
		return nil, problem
	}
	conn, problem := open(ctx, name, t, o)
	if problem != nil {
		_ = t.close() // the error that matters is the first
		return nil, problem
	}
	return conn, nil
}

func open(ctx context.Context, name string, t *transport, o Options) (*Conn, *Error) {
	first, cancel := context.WithTimeout(ctx, o.Timeout)
	problem := t.check(first)
	cancel()
	if problem != nil {
		return nil, problem
	}
	opts := []client.Opt{
		client.WithHTTPClient(&http.Client{
			// A transport without a dialer of its own would take HTTP/2, and
			// with it TLS, for wanted.
			Transport: &http.Transport{
				DialContext: t.dial, TLSClientConfig: t.tls, MaxIdleConns: 6, IdleConnTimeout: 30 * time.Second,
			},
			CheckRedirect: client.CheckRedirect,
		}),
		client.WithHost(t.url),
		client.WithDialContext(t.dial),
	}
	c, err := client.New(opts...)
	if err != nil {
		return nil, &Error{Kind: Invalid, Endpoint: name, Text: err.Error(), Err: err}
	}
	answer, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	ping, err := c.Ping(answer, client.PingOptions{NegotiateAPIVersion: true})
	if ping.APIVersion != "" && versions.LessThan(ping.APIVersion, MinAPIVersion) {
		_ = c.Close() // nothing was asked of it yet
		return nil, &Error{
			Kind: TooOld, Endpoint: name, Err: err,
			Text:   "the engine speaks API " + ping.APIVersion + ", Docker 20.10 (API " + MinAPIVersion + ") is the oldest that will do",
			Remedy: "upgrade the Docker Engine there",
		}
	}
	if err != nil {
		_ = c.Close() // as above
		if p := tlsProblem(name, t.tls, err); p != nil {
			return nil, p
		}
		return nil, request(name, err)
	}
	if ping.APIVersion == "" {
		_ = c.Close() // as above
		return nil, &Error{
			Kind: NoEngine, Endpoint: name,
			Text:   "something answers HTTP there, but it is not a Docker Engine",
			Remedy: "check the port",
		}
	}
	return &Conn{Client: c, Endpoint: name, Host: t.host, APIVersion: ping.APIVersion, close: t.close}, nil
}
