package connect

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// answers is as much of an engine as [Open] asks for: what it really is like
// is seen by the tests with real engines.
func answers(api string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if api != "" {
			w.Header().Set("Api-Version", api)
		}
		w.Header().Set("Ostype", "linux")
		_, _ = w.Write([]byte("OK"))
	})
}

// serve answers on a listener until the test ends.
func serve(t *testing.T, l net.Listener, h http.Handler) {
	t.Helper()
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l) // ends with the test
	}()
	t.Cleanup(func() {
		_ = s.Close() // as above
		<-done
	})
}

func listen(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	assert.NilError(t, err)
	t.Cleanup(func() { _ = l.Close() }) // may be closed already
	return l
}

// options are those of a user whose home is empty.
func options(t *testing.T, env map[string]string) Options {
	t.Helper()
	return Options{Home: t.TempDir(), Getenv: func(k string) string { return env[k] }, Timeout: 2 * time.Second}
}

// authority is a CA as an engine's owner would make one.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	assert.NilError(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	assert.NilError(t, err)
	cert, err := x509.ParseCertificate(der)
	assert.NilError(t, err)
	return authority{cert, key}
}

func (a authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

func (a authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// issue signs a certificate and returns it with its key as PEM.
func (a authority) issue(t *testing.T, name string, end time.Duration, sans ...string) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	assert.NilError(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(end),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, s := range sans {
		if ip := net.ParseIP(s); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, s)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, k.Public(), a.key)
	assert.NilError(t, err)
	kd, err := x509.MarshalPKCS8PrivateKey(k)
	assert.NilError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: kd})
}

// certDir writes the three files that docker takes.
func certDir(t *testing.T, ca, cert, key []byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, b := range map[string][]byte{"ca.pem": ca, "cert.pem": cert, "key.pem": key} {
		if b != nil {
			assert.NilError(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
		}
	}
	return dir
}

// tlsEngine listens as dockerd --tlsverify does and returns its address.
func tlsEngine(t *testing.T, server, users authority, end time.Duration, sans ...string) string {
	t.Helper()
	cert, key := server.issue(t, "engine", end, sans...)
	pair, err := tls.X509KeyPair(cert, key)
	assert.NilError(t, err)
	l := listen(t, "tcp", "127.0.0.1:0")
	serve(t, tls.NewListener(l, &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: users.pool(), ClientAuth: tls.RequireAndVerifyClientCert,
	}), answers("1.51"))
	return l.Addr().String()
}
