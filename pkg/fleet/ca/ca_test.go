package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func clock() time.Time { return epoch }

func request(t *testing.T) (key, csr []byte) {
	t.Helper()
	key, csr, err := NewKey()
	assert.NilError(t, err)
	return key, csr
}

func TestCertificatesSayWhoTheirBearerIs(t *testing.T) {
	a, err := Create("demo", clock)
	assert.NilError(t, err)
	for name, tc := range map[string]struct {
		issue         func(csr []byte) ([]byte, error)
		cn, org       string
		life          time.Duration
		client, serve bool
		ips, dns      int
	}{
		"user": {func(csr []byte) ([]byte, error) { return a.IssueUser(csr, "alice") }, "alice", OrgAdmin, CertificateLifetime, true, false, 0, 0},
		"host": {func(csr []byte) ([]byte, error) { return a.IssueHost(csr, "h1", []string{"10.0.0.7", "h1.example"}) },
			"host-h1", OrgHost, CertificateLifetime, true, true, 1, 1},
		"controller": {func(csr []byte) ([]byte, error) {
			return a.IssueController(csr, []string{"10.0.0.7", "10.0.0.7", "::1", "localhost", ""})
		}, CommonNameController, OrgController, ControllerLifetime, true, true, 2, 1},
		"root": {a.IssueRoot, CommonNameRoot, OrgController, ControllerLifetime, true, false, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			_, csr := request(t)
			text, err := tc.issue(csr)
			assert.NilError(t, err)
			c, err := ParseCertificate(text)
			assert.NilError(t, err)
			assert.Equal(t, c.Subject.CommonName, tc.cn)
			assert.DeepEqual(t, c.Subject.Organization, []string{tc.org})
			assert.Equal(t, c.NotAfter, epoch.Add(tc.life))
			assert.Assert(t, c.NotBefore.Before(epoch) && c.NotBefore.After(epoch.Add(-time.Hour)))
			assert.Assert(t, !c.IsCA)
			assert.Equal(t, len(c.IPAddresses), tc.ips)
			assert.Equal(t, len(c.DNSNames), tc.dns)
			for usage, want := range map[x509.ExtKeyUsage]bool{x509.ExtKeyUsageClientAuth: tc.client, x509.ExtKeyUsageServerAuth: tc.serve} {
				_, err := c.Verify(x509.VerifyOptions{Roots: a.Pool(), CurrentTime: epoch, KeyUsages: []x509.ExtKeyUsage{usage}})
				assert.Equal(t, err == nil, want, "usage %v: %v", usage, err)
			}
		})
	}
}

func TestNamesThatMeanSomethingToEtcdAreNotIssuedToUsers(t *testing.T) {
	a, err := Create("demo", clock)
	assert.NilError(t, err)
	_, csr := request(t)
	for _, name := range []string{"root", "Root", "controller", "host-1", "HOST-x", "", "a b", "a\nb", "-x", "é", string(bytes.Repeat([]byte("a"), 65))} {
		_, err := a.IssueUser(csr, name)
		assert.ErrorIs(t, err, ErrName, "%q", name)
	}
	for _, id := range []string{"", "A", "a/b", "../x", string(bytes.Repeat([]byte("a"), 58))} {
		_, err := a.IssueHost(csr, id, nil)
		assert.ErrorIs(t, err, ErrName, "%q", id)
	}
	for _, san := range []string{"a b", "*.example", "a..b", "http://x", "x/24"} {
		_, err := a.IssueHost(csr, "h1", []string{san})
		assert.ErrorIs(t, err, ErrName, "%q", san)
	}
}

func TestNothingButTheKeyIsTakenFromARequest(t *testing.T) {
	a, err := Create("demo", clock)
	assert.NilError(t, err)
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	assert.NilError(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: CommonNameRoot, Organization: []string{OrgAdmin}},
		DNSNames: []string{"evil.example"}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)},
	}, k)
	assert.NilError(t, err)
	text, err := a.IssueHost(encode(der), "h1", nil)
	assert.NilError(t, err)
	c, err := ParseCertificate(text)
	assert.NilError(t, err)
	assert.Equal(t, c.Subject.CommonName, "host-h1")
	assert.DeepEqual(t, c.Subject.Organization, []string{OrgHost})
	assert.Equal(t, len(c.DNSNames)+len(c.IPAddresses), 0)
	assert.Assert(t, k.PublicKey.Equal(c.PublicKey))
}

func encode(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func TestRequestsThatCannotBeTrustedAreRefused(t *testing.T) {
	a, err := Create("demo", clock)
	assert.NilError(t, err)
	_, good := request(t)
	block, _ := pem.Decode(good)
	forged := bytes.Clone(block.Bytes)
	forged[len(forged)-1] ^= 1 // the signature
	rk, err := rsa.GenerateKey(rand.Reader, 2048)
	assert.NilError(t, err)
	rsaReq, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, rk)
	assert.NilError(t, err)
	pk, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	assert.NilError(t, err)
	p384, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, pk)
	assert.NilError(t, err)
	for name, csr := range map[string][]byte{
		"nothing":           nil,
		"no PEM":            []byte("hello"),
		"another block":     a.Certificate(),
		"damaged":           encode([]byte{1, 2, 3}),
		"forged":            encode(forged),
		"RSA":               encode(rsaReq),
		"another curve":     encode(p384),
		"something follows": append(bytes.Clone(good), good...),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := a.IssueHost(csr, "h1", nil)
			assert.ErrorIs(t, err, ErrRequest)
		})
	}
}

func TestNoCertificateOutlivesTheAuthority(t *testing.T) {
	now := epoch
	a, err := Create("demo", func() time.Time { return now })
	assert.NilError(t, err)
	now = epoch.Add(AuthorityLifetime - time.Hour)
	_, csr := request(t)
	text, err := a.IssueUser(csr, "alice")
	assert.NilError(t, err)
	c, err := ParseCertificate(text)
	assert.NilError(t, err)
	assert.Equal(t, c.NotAfter, epoch.Add(AuthorityLifetime))
}

func TestSealedAuthoritySignsAgain(t *testing.T) {
	a, err := Create("demo", nil)
	assert.NilError(t, err)
	s, err := a.Seal()
	assert.NilError(t, err)
	assert.Assert(t, !bytes.Contains(s.Key, []byte("PRIVATE KEY")))
	config, data := t.TempDir(), t.TempDir()
	assert.NilError(t, s.Save(config, data))
	for dir, name := range map[string]string{config: IdentityFile, data: SealedKeyFile} {
		st, err := os.Stat(filepath.Join(dir, name))
		assert.NilError(t, err)
		assert.Equal(t, st.Mode().Perm(), os.FileMode(0o600), name)
	}
	b, err := Load(config, data, nil)
	assert.NilError(t, err)
	assert.DeepEqual(t, b.Certificate(), a.Certificate())
	_, csr := request(t)
	text, err := b.IssueUser(csr, "alice")
	assert.NilError(t, err)
	c, err := ParseCertificate(text)
	assert.NilError(t, err)
	_, err = c.Verify(x509.VerifyOptions{Roots: a.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	assert.NilError(t, err)
}

func TestSealedAuthorityStaysShutForTheWrongParts(t *testing.T) {
	a, err := Create("demo", nil)
	assert.NilError(t, err)
	s, err := a.Seal()
	assert.NilError(t, err)
	other, err := Create("demo", nil)
	assert.NilError(t, err)
	o, err := other.Seal()
	assert.NilError(t, err)
	damaged := bytes.Clone(s.Key)
	damaged[len(damaged)-1] ^= 1
	for name, tc := range map[string]Sealed{
		"another identity":    {s.Certificate, s.Key, o.Identity},
		"another key":         {s.Certificate, o.Key, o.Identity},
		"another certificate": {o.Certificate, s.Key, s.Identity},
		"damaged key":         {s.Certificate, damaged, s.Identity},
		"truncated key":       {s.Certificate, s.Key[:len(s.Key)/2], s.Identity},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := tc.Open(nil)
			assert.ErrorIs(t, err, ErrIdentity)
		})
	}
	config, data := t.TempDir(), t.TempDir()
	assert.NilError(t, s.Save(config, data))
	assert.NilError(t, os.Chmod(filepath.Join(config, IdentityFile), 0o644))
	_, err = Load(config, data, nil)
	assert.ErrorContains(t, err, "chmod 600")
	assert.NilError(t, os.Remove(filepath.Join(data, SealedKeyFile)))
	assert.NilError(t, os.Chmod(filepath.Join(config, IdentityFile), 0o600))
	_, err = Load(config, data, nil)
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func TestHostAndControllerShakeHandsInTLS13(t *testing.T) {
	a, err := Create("demo", nil)
	assert.NilError(t, err)
	pair := func(issue func(csr []byte) ([]byte, error)) tls.Certificate {
		key, csr := request(t)
		cert, err := issue(csr)
		assert.NilError(t, err)
		p, err := tls.X509KeyPair(cert, key)
		assert.NilError(t, err)
		return p
	}
	server := &tls.Config{
		Certificates: []tls.Certificate{pair(func(csr []byte) ([]byte, error) { return a.IssueController(csr, []string{"127.0.0.1"}) })},
		ClientCAs:    a.Pool(), ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
	}
	client := &tls.Config{
		Certificates: []tls.Certificate{pair(func(csr []byte) ([]byte, error) { return a.IssueHost(csr, "h1", nil) })},
		RootCAs:      a.Pool(), ServerName: "127.0.0.1",
	}
	near, far := net.Pipe()
	done := make(chan error, 1)
	var cn string
	go func() {
		s := tls.Server(far, server)
		err := s.Handshake()
		if err == nil {
			cn = s.ConnectionState().PeerCertificates[0].Subject.CommonName
			_, err = s.Write([]byte("x"))
		}
		done <- err
	}()
	c := tls.Client(near, client)
	assert.NilError(t, c.Handshake())
	_, err = c.Read(make([]byte, 1))
	assert.NilError(t, err)
	assert.NilError(t, <-done)
	assert.Equal(t, cn, "host-h1")
	assert.Equal(t, c.ConnectionState().Version, uint16(tls.VersionTLS13))
}

func FuzzRequest(f *testing.F) {
	a, err := Create("demo", clock)
	if err != nil {
		f.Fatal(err)
	}
	_, csr, err := NewKey()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(csr)
	f.Add(a.Certificate())
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\n\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, csr []byte) {
		text, err := a.IssueHost(csr, "h1", nil)
		if err != nil {
			if !errors.Is(err, ErrRequest) {
				t.Fatalf("a request gives an error of another kind: %v", err)
			}
			return
		}
		c, err := ParseCertificate(text)
		if err != nil || c.Subject.CommonName != "host-h1" || c.IsCA || len(c.DNSNames) > 0 {
			t.Fatalf("a request decides what is certified: %v %v", c.Subject, err)
		}
	})
}
