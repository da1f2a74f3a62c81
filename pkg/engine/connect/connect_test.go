package connect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/cli/cli/context/docker"
	"github.com/docker/cli/cli/context/store"
	"github.com/moby/moby/client"
	"gotest.tools/v3/assert"

	dockercontext "github.com/docker/cli/cli/context"
)

// refused opens an endpoint that must not open and checks the reason.
func refused(t *testing.T, endpoint string, o Options, kind Kind, texts ...string) {
	t.Helper()
	c, err := Open(t.Context(), endpoint, o)
	if err == nil {
		_ = c.Close() // the test has failed already
		t.Fatalf("%s was opened", endpoint)
	}
	var e *Error
	assert.Assert(t, errors.As(err, &e), "%v", err)
	assert.Equal(t, e.Kind, kind, "%v", err)
	assert.Assert(t, IsKind(err, kind))
	for _, s := range append(texts, e.Endpoint) {
		assert.ErrorContains(t, err, s)
	}
}

func opened(t *testing.T, endpoint string, o Options) *Conn {
	t.Helper()
	c, err := Open(t.Context(), endpoint, o)
	assert.NilError(t, err)
	t.Cleanup(func() { assert.NilError(t, c.Close()) })
	return c
}

func TestSocketOfThisMachine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d.sock")
	refused(t, "unix://"+path, options(t, nil), NoEngine, "there is no "+path)
	l := listen(t, "unix", path)
	serve(t, l, answers("1.44"))
	c := opened(t, "unix://"+path, options(t, nil))
	assert.Equal(t, c.Endpoint, "unix://"+path)
	assert.Equal(t, c.Host, "")
	assert.Equal(t, c.APIVersion, "1.44")
	assert.Equal(t, c.Client.ClientVersion(), "1.44")
	c = opened(t, "", options(t, map[string]string{"DOCKER_HOST": "unix://" + path}))
	assert.Equal(t, c.Endpoint, "unix://"+path)
}

func TestASocketThatNobodyListensOnIsNoEngine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	assert.NilError(t, err)
	l.SetUnlinkOnClose(false)
	assert.NilError(t, l.Close())
	refused(t, "unix://"+path, options(t, nil), NoEngine, "nothing listens on", "systemctl start docker")
}

func TestWhatAnswersMustBeAnEngineOfToday(t *testing.T) {
	for name, tc := range map[string]struct {
		handler http.Handler
		kind    Kind
		text    string
	}{
		"too old":    {answers("1.40"), TooOld, "20.10"},
		"much older": {answers("1.24"), TooOld, "API 1.24"},
		"web server": {answers(""), NoEngine, "not a Docker Engine"},
		"error page": {http.NotFoundHandler(), NoEngine, "not a Docker Engine"},
		"hangs up":   {http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), NoEngine, "closed the connection"},
		"TLS is asked": {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "Client sent an HTTP request to an HTTPS server.", http.StatusBadRequest)
		}), PlainToTLS, "--tls-cert-dir"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "d.sock")
			serve(t, listen(t, "unix", path), tc.handler)
			refused(t, "unix://"+path, options(t, nil), tc.kind, tc.text)
		})
	}
	t.Run("speaks no HTTP", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "d.sock")
		l := listen(t, "unix", path)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Read(make([]byte, 4096))                  // a probe says nothing
				_, _ = fmt.Fprint(c, "220 mail.example ESMTP\r\n") // whoever reads it
				_ = c.Close()                                      // as above
			}
		}()
		refused(t, "unix://"+path, options(t, nil), NoEngine, "not a Docker Engine")
	})
}

func TestPlainTCPIsForThisMachineAlone(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	serve(t, l, answers("1.51"))
	c := opened(t, "tcp://"+l.Addr().String(), options(t, nil))
	assert.Equal(t, c.Host, "127.0.0.1")
	refused(t, "tcp://192.0.2.1:2375", options(t, nil), Insecure, "plain tcp", "--tls-cert-dir", "DOCKER_CERT_PATH", "ssh://")
	refused(t, "tcp://engine.example", options(t, nil), Insecure)
}

func TestNothingListensOrNothingAnswers(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	address := l.Addr().String()
	assert.NilError(t, l.Close())
	refused(t, "tcp://"+address, options(t, nil), Refused, "127.0.0.1 refuses connections on port "+address[len("127.0.0.1:"):])

	silent := listen(t, "tcp", "127.0.0.1:0") // takes connections and says nothing
	ca := newAuthority(t, "CA")
	cert, key := ca.issue(t, "user", time.Hour)
	o := options(t, nil)
	o.CertDir, o.Timeout = certDir(t, ca.pem(), cert, key), 200*time.Millisecond
	refused(t, "tcp://"+silent.Addr().String(), o, Timeout, "does not answer", "firewall")

	o = options(t, nil)
	o.CertDir = certDir(t, ca.pem(), cert, key)
	refused(t, "tcp://no-such-name.invalid:2376", o, Unresolved, "no-such-name.invalid")
}

func TestErrorsOfTheNetworkAreToldApart(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		kind Kind
	}{
		"no route":    {&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}, NoRoute},
		"no network":  {&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ENETUNREACH)}, NoRoute},
		"permission":  {&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EACCES)}, Permission},
		"end of time": {context.DeadlineExceeded, Timeout},
		"else":        {errors.New("the moon is full"), Other},
	} {
		t.Run(name, func(t *testing.T) {
			e := network("tcp://h:1", "h:1", "the Docker Engine", tc.err)
			assert.Equal(t, e.Kind, tc.kind, "%v", e)
			assert.ErrorIs(t, e, tc.err)
		})
	}
}

func TestCertificatesAreChecked(t *testing.T) {
	ours, theirs := newAuthority(t, "our CA"), newAuthority(t, "their CA")
	cert, key := ours.issue(t, "me", time.Hour)
	stranger, strangerKey := theirs.issue(t, "stranger", time.Hour)
	expiredCert, expiredKey := ours.issue(t, "late", -time.Hour)
	mine := certDir(t, ours.pem(), cert, key)
	good := tlsEngine(t, ours, ours, time.Hour, "127.0.0.1")
	for name, tc := range map[string]struct {
		address, dir string
		kind         Kind
		texts        []string
	}{
		"signed by another":     {tlsEngine(t, theirs, ours, time.Hour, "127.0.0.1"), mine, Certificate, []string{`signed by "CN=their CA"`, `not by "CN=our CA"`}},
		"for another name":      {tlsEngine(t, ours, ours, time.Hour, "10.0.0.9", "other.example"), mine, Certificate, []string{"is for other.example, 10.0.0.9, not for 127.0.0.1"}},
		"for no name":           {tlsEngine(t, ours, ours, time.Hour), mine, Certificate, []string{"no name at all"}},
		"out of date":           {tlsEngine(t, ours, ours, -time.Hour, "127.0.0.1"), mine, Certificate, []string{"holds from", "set the clocks"}},
		"user is a stranger":    {good, certDir(t, ours.pem(), stranger, strangerKey), ClientCertificate, []string{`"CN=stranger" signed by "CN=their CA"`, "--tlscacert"}},
		"user is out of date":   {good, certDir(t, ours.pem(), expiredCert, expiredKey), ClientCertificate, []string{`"CN=late"`}},
		"no such directory":     {good, filepath.Join(t.TempDir(), "none"), Credentials, []string{"must hold ca.pem, cert.pem and key.pem"}},
		"file missing":          {good, certDir(t, ours.pem(), cert, nil), Credentials, []string{"key.pem"}},
		"key of another":        {good, certDir(t, ours.pem(), cert, strangerKey), Credentials, []string{"cannot be used"}},
		"no certificate inside": {good, certDir(t, []byte("x"), cert, key), Credentials, []string{"ca.pem holds no certificate"}},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t, nil)
			o.CertDir = tc.dir
			refused(t, "tcp://"+tc.address, o, tc.kind, tc.texts...)
		})
	}
	t.Run("good", func(t *testing.T) {
		o := options(t, map[string]string{"DOCKER_CERT_PATH": mine})
		c := opened(t, "tcp://"+good, o)
		_, err := c.Client.Ping(t.Context(), client.PingOptions{})
		assert.NilError(t, err)
	})
	t.Run("docker's own directory", func(t *testing.T) {
		o := options(t, map[string]string{"DOCKER_TLS_VERIFY": "1"})
		assert.NilError(t, os.Symlink(mine, filepath.Join(o.Home, ".docker")))
		opened(t, "tcp://"+good, o)
	})
	t.Run("no TLS there", func(t *testing.T) {
		l := listen(t, "tcp", "127.0.0.1:0")
		serve(t, l, answers("1.51"))
		o := options(t, nil)
		o.CertDir = mine
		refused(t, "tcp://"+l.Addr().String(), o, NotTLS, "does not speak TLS")
	})
	t.Run("TLS there", func(t *testing.T) {
		refused(t, "tcp://"+good, options(t, nil), PlainToTLS, "wants TLS")
	})
}

func TestEndpointsThatAreNone(t *testing.T) {
	for _, e := range []string{
		"h1", "/var/run/docker.sock", "http://h1", "npipe:////./pipe/x", "unix://relative", "unix://host/path",
		"tcp://", "tcp://u@h:1", "tcp://h:1/path", "tcp://h:1?x=1", "ssh://", "ssh://u:secret@h", "ssh://h#f", "tcp://h:port", "context:",
	} {
		refused(t, e, options(t, nil), Invalid)
	}
	_, err := Open(t.Context(), "ssh://u:secret@h", options(t, nil))
	assert.ErrorContains(t, err, "no password")
}

// contexts is what docker's own command knows of contexts.
type contexts struct {
	store   store.Store
	current string
	def     docker.Endpoint
}

func (c contexts) ContextStore() store.Store       { return c.store }
func (c contexts) CurrentContext() string          { return c.current }
func (c contexts) DockerEndpoint() docker.Endpoint { return c.def }

func TestDockerContextsLeadToTheirEngines(t *testing.T) {
	ca := newAuthority(t, "CA")
	cert, key := ca.issue(t, "me", time.Hour)
	address := tlsEngine(t, ca, ca, time.Hour, "127.0.0.1")
	path := filepath.Join(t.TempDir(), "d.sock")
	serve(t, listen(t, "unix", path), answers("1.51"))

	s := store.New(t.TempDir(), store.NewConfig(func() any { return &map[string]any{} },
		store.EndpointTypeGetter(docker.DockerEndpoint, func() any { return &docker.EndpointMeta{} })))
	add := func(name string, m docker.EndpointMeta, tls *dockercontext.TLSData) {
		assert.NilError(t, s.CreateOrUpdate(store.Metadata{Name: name, Metadata: map[string]any{}, Endpoints: map[string]any{docker.DockerEndpoint: m}}))
		if tls != nil {
			assert.NilError(t, s.ResetTLSMaterial(name, &store.ContextTLSData{Endpoints: map[string]store.EndpointTLSData{
				docker.DockerEndpoint: *tls.ToStoreTLSData(),
			}}))
		}
	}
	add("tls", docker.EndpointMeta{Host: "tcp://" + address}, &dockercontext.TLSData{CA: ca.pem(), Cert: cert, Key: key})
	add("socket", docker.EndpointMeta{Host: "unix://" + path}, nil)
	add("plain", docker.EndpointMeta{Host: "tcp://192.0.2.1:2375"}, nil)
	add("blind", docker.EndpointMeta{Host: "tcp://192.0.2.1:2376", SkipTLSVerify: true}, &dockercontext.TLSData{CA: ca.pem()})
	assert.NilError(t, s.CreateOrUpdate(store.Metadata{Name: "void", Metadata: map[string]any{}, Endpoints: map[string]any{}}))

	o := options(t, nil)
	o.Contexts = contexts{store: s, current: "socket", def: docker.Endpoint{EndpointMeta: docker.EndpointMeta{Host: "unix://" + path}}}
	for endpoint, want := range map[string]string{"context:tls": "context:tls", "context:socket": "context:socket", "": "context:socket"} {
		c := opened(t, endpoint, o)
		assert.Equal(t, c.Endpoint, want)
	}
	refused(t, "context:nosuch", o, Invalid, `no docker context "nosuch"`, "docker context ls")
	refused(t, "context:void", o, Invalid, "no Docker Engine")
	refused(t, "context:plain", o, Insecure)
	refused(t, "context:blind", o, Insecure, "does not verify")

	o.Contexts = contexts{store: s, current: "default", def: docker.Endpoint{EndpointMeta: docker.EndpointMeta{Host: "unix://" + path}}}
	c := opened(t, "", o)
	assert.Equal(t, c.Endpoint, "unix://"+path, "an engine without a context is remembered by its address")
	opened(t, "context:default", o)
	o.Contexts = nil
	refused(t, "context:socket", o, Invalid)
}

func TestHostOfAnEndpoint(t *testing.T) {
	for in, want := range map[string]string{
		"ssh://root@h1:22": "h1", "tcp://10.0.0.7:2376": "10.0.0.7", "tcp://[fd00::1]:2376": "fd00::1",
		"unix:///x": "", "context:x": "", "": "", "::": "",
	} {
		assert.Equal(t, HostOf(in), want, "%q", in)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	e := &Error{Kind: Refused, Endpoint: "tcp://h:1", Text: "it refuses", Remedy: "try another", Err: os.ErrClosed}
	assert.Error(t, e, "connect tcp://h:1: it refuses: try another")
	assert.ErrorIs(t, e, os.ErrClosed)
	assert.Assert(t, !IsKind(errors.New("x"), Refused))
	assert.Assert(t, !strings.Contains((&Error{Endpoint: "x", Text: "y"}).Error(), ": :"))
}
