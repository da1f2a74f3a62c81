package connect

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func unixTransport(name, path string) *transport {
	d := &net.Dialer{Timeout: dialTimeout}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", path) }
	return &transport{
		url: "unix://" + path, dial: dial, close: func() error { return nil },
		check: func(ctx context.Context) *Error {
			c, err := dial(ctx, "", "")
			if err != nil {
				return network(name, path, "the Docker Engine", err)
			}
			_ = c.Close() // nothing was sent
			return nil
		},
	}
}

func tcpTransport(name, host, address string, t *tls.Config) *transport {
	d := &net.Dialer{Timeout: dialTimeout, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4,
	}}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) }
	return &transport{
		url: "tcp://" + address, host: host, tls: t, dial: dial, close: func() error { return nil },
		check: func(ctx context.Context) *Error {
			c, err := dial(ctx, "", "")
			if err != nil {
				return network(name, address, "the Docker Engine", err)
			}
			defer func() { _ = c.Close() }() // nothing was sent
			if t == nil {
				return nil
			}
			cfg := t.Clone()
			cfg.ServerName = host
			if err := tls.Client(c, cfg).HandshakeContext(ctx); err != nil {
				if p := tlsProblem(name, t, err); p != nil {
					return p
				}
				return network(name, address, "the Docker Engine", err)
			}
			return nil
		},
	}
}

// tlsFromOptions reads the user's TLS files; nil when there are none to use.
func tlsFromOptions(name string, o Options) (*tls.Config, *Error) {
	dir := o.CertDir
	if dir == "" {
		dir = o.Getenv("DOCKER_CERT_PATH")
	}
	if dir == "" && o.Getenv("DOCKER_TLS_VERIFY") != "" {
		dir = o.dockerConfigDir()
	}
	if dir == "" {
		return nil, nil
	}
	var texts [3][]byte
	for i, f := range []string{"ca.pem", "cert.pem", "key.pem"} {
		b, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			return nil, &Error{
				Kind: Credentials, Endpoint: name, Err: err, Text: err.Error(),
				Remedy: dir + " must hold ca.pem, cert.pem and key.pem",
			}
		}
		texts[i] = b
	}
	return tlsFromData(name, texts[0], texts[1], texts[2])
}

func tlsFromData(name string, ca, cert, key []byte) (*tls.Config, *Error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(ca) > 0 {
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(ca) {
			return nil, &Error{Kind: Credentials, Endpoint: name, Text: "ca.pem holds no certificate"}
		}
	}
	if len(cert) > 0 || len(key) > 0 {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			text := "cert.pem and key.pem cannot be used: " + err.Error()
			if block, _ := pem.Decode(key); block != nil && strings.Contains(block.Type, "ENCRYPTED") {
				text = "key.pem is protected by a passphrase, which is not supported"
			}
			return nil, &Error{Kind: Credentials, Endpoint: name, Text: text, Err: err}
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// tlsProblem explains what is wrong with a TLS connection; nil when the error
// is about something else.
func tlsProblem(name string, t *tls.Config, err error) *Error {
	e := &Error{Kind: Certificate, Endpoint: name, Err: err}
	var (
		unknown x509.UnknownAuthorityError
		host    x509.HostnameError
		invalid x509.CertificateInvalidError
		record  tls.RecordHeaderError
		alert   tls.AlertError
		verify  *tls.CertificateVerificationError
	)
	switch {
	case errors.As(err, &unknown):
		e.Text = "the engine shows a certificate that " + expected(t) + " did not sign"
		if errors.As(err, &verify) && len(verify.UnverifiedCertificates) > 0 {
			leaf := verify.UnverifiedCertificates[0]
			e.Text = fmt.Sprintf("the engine shows a certificate signed by %q, and not by %s", leaf.Issuer.String(), expected(t))
		}
		e.Remedy = "use the ca.pem that belongs to this engine; if it should, somebody may be in between"
	case errors.As(err, &host):
		e.Text = fmt.Sprintf("the engine's certificate is for %s, not for %s", strings.Join(sans(host.Certificate), ", "), host.Host)
		e.Remedy = "use one of these names, or make the engine a certificate for this one"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		e.Text = fmt.Sprintf("the engine's certificate holds from %s to %s",
			invalid.Cert.NotBefore.UTC().Format(time.DateTime), invalid.Cert.NotAfter.UTC().Format(time.DateTime))
		e.Remedy = "renew it, or set the clocks"
	case errors.As(err, &invalid):
		e.Text = "the engine's certificate cannot be used: " + invalid.Error()
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		e.Kind, e.Text = NotTLS, "what answers there does not speak TLS"
		e.Remedy = "check the port: engines listen with TLS on 2376, once set up"
	case errors.As(err, &alert), strings.Contains(err.Error(), "remote error: tls"):
		e.Kind = ClientCertificate
		e.Text = "the engine refuses this user's certificate"
		switch {
		case t == nil || len(t.Certificates) == 0:
			e.Text = "the engine wants a certificate of its user, and there is none"
		default:
			if leaf := t.Certificates[0].Leaf; leaf != nil {
				e.Text = fmt.Sprintf("the engine refuses this user's certificate (%q signed by %q)", leaf.Subject.String(), leaf.Issuer.String())
			}
		}
		e.Text += ": " + reason(err)
		e.Remedy = "use a cert.pem and key.pem signed by the CA that the engine was started with (--tlscacert)"
	default:
		return nil
	}
	return e
}

// reason is the text of the peer's TLS alert.
func reason(err error) string {
	s := err.Error()
	if i := strings.LastIndex(s, "tls: "); i >= 0 {
		return s[i+len("tls: "):]
	}
	return s
}

// expected names who should have signed an engine's certificate.
func expected(t *tls.Config) string {
	if t == nil || t.RootCAs == nil {
		return "an authority that this machine trusts"
	}
	// A pool does not give its certificates back, but their subjects.
	var names []string
	for _, raw := range t.RootCAs.Subjects() { //nolint:staticcheck // the pool was made from a file here, it is not the system's
		var rdn pkix.RDNSequence
		if _, err := asn1.Unmarshal(raw, &rdn); err == nil {
			names = append(names, fmt.Sprintf("%q", rdn.String()))
		}
	}
	if len(names) == 0 {
		return "the given ca.pem"
	}
	return strings.Join(names, " or ")
}

func sans(c *x509.Certificate) []string {
	out := append([]string{}, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		out = append(out, ip.String())
	}
	if len(out) == 0 {
		return []string{"no name at all"}
	}
	return out
}
