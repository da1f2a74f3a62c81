// Package ca is a fleet's certificate authority: it makes the root, signs
// certificates for controllers, users and hosts, and keeps its key encrypted
// at rest. Every key is ECDSA P-256; everything is meant for TLS 1.3.
//
// It never sees the private key of a host or a user: those are signed from
// certificate requests, of which only the public key is used. Names are
// always given by the caller, never taken from a request. Nothing here talks
// to a network.
//
// Who somebody is stands in the certificate: users have CN = user name and
// O = "clocker:user", or "clocker:admin" when made by init, hosts CN =
// "host-<id>" and O = "clocker:host". What a user may do stands in the fleet's
// records. etcd takes the CN as its user, so the names that mean something to
// it cannot be issued to a user.
//
// Design page: docs/design/security.md.
package ca

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"regexp"
	"strings"
	"time"
)

// The organisations (O) that say what a certificate's bearer is.
const (
	OrgAdmin      = "clocker:admin"
	OrgUser       = "clocker:user"
	OrgHost       = "clocker:host"
	OrgController = "clocker:controller"
)

// The common names with a fixed meaning. etcd's superuser is the bearer of
// CommonNameRoot.
const (
	CommonNameRoot       = "root"
	CommonNameController = "controller"
	hostPrefix           = "host-"
)

// How long certificates hold. Each is renewed by its bearer long before.
const (
	AuthorityLifetime   = 10 * 365 * 24 * time.Hour
	CertificateLifetime = 90 * 24 * time.Hour
	// ControllerLifetime is longer: a controller that holds the authority
	// signs itself a new certificate, one that is away cannot.
	ControllerLifetime = 365 * 24 * time.Hour
	// backdate covers clocks that differ between machines.
	backdate = Backdate
	// Backdate is how long before it is made a certificate begins to hold.
	Backdate = 5 * time.Minute
)

// ErrName means that a certificate was asked for under a name that cannot be
// given.
var ErrName = errors.New("name cannot be given to a certificate")

// ErrRequest means that a certificate request is not one this authority
// signs.
var ErrRequest = errors.New("unusable certificate request")

// Authority signs a fleet's certificates. It is safe for concurrent use.
type Authority struct {
	cert *x509.Certificate // never nil
	also []byte            // certificates trusted beside it, as PEM
	key  *ecdsa.PrivateKey // never nil; belongs to cert
	now  func() time.Time  // never nil
	// lives are set before anything is signed.
	lives Lifetimes
}

// Create makes a new authority for the named fleet. now may be nil for the
// machine's clock.
func Create(fleet string, now func() time.Time) (*Authority, error) {
	if now == nil {
		now = time.Now
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make CA key: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, fmt.Errorf("make CA certificate: %w", err)
	}
	t := now().UTC()
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: authorityPrefix + fleet, Organization: []string{"clocker:ca"}},
		NotBefore:             t.Add(-backdate),
		NotAfter:              t.Add(AuthorityLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make CA certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make CA certificate: %w", err)
	}
	return &Authority{cert: cert, key: key, now: now}, nil
}

// Certificate returns the root as PEM.
func (a *Authority) Certificate() []byte { return encodeCert(a.cert.Raw) }

// Bundle returns every certificate that the fleet trusts as PEM, the one that
// signs first.
func (a *Authority) Bundle() []byte { return append(a.Certificate(), a.also...) }

// Pool returns a pool that trusts what the fleet trusts.
func (a *Authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AppendCertsFromPEM(a.Bundle())
	return p
}

// Lifetimes of what this authority signs, where they differ from the usual.
// They are for tests; 0 means the usual.
type Lifetimes struct{ Host, User, Controller time.Duration }

// SetLifetimes changes how long certificates hold. It is called before anything
// is signed.
func (a *Authority) SetLifetimes(l Lifetimes) { a.lives = l }

var (
	userName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)
	hostID   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,56}$`)
)

// authorityPrefix begins the CN of every authority.
const authorityPrefix = "clocker fleet "

// FleetOf is the name of the fleet whose authority a certificate is; empty when
// it is none.
func FleetOf(c *x509.Certificate) string {
	name, ok := strings.CutPrefix(c.Subject.CommonName, authorityPrefix)
	if !ok || !c.IsCA {
		return ""
	}
	return name
}

// HostCommonName is the CN, and so the etcd user, of the host with the id.
func HostCommonName(id string) string { return hostPrefix + id }

// IssueUser signs a client certificate for the fleet's first user: CN = name,
// O = "clocker:admin". Names that mean something to etcd ("root",
// "controller", "host-...") are refused with [ErrName].
func (a *Authority) IssueUser(csr []byte, name string) ([]byte, error) {
	return a.issueUser(csr, name, OrgAdmin)
}

// IssueMember signs a client certificate for a user whose rights stand in the
// fleet's records: CN = name, O = "clocker:user". It refuses the names that
// [Authority.IssueUser] refuses.
func (a *Authority) IssueMember(csr []byte, name string) ([]byte, error) {
	return a.issueUser(csr, name, OrgUser)
}

// CheckUserName refuses names that no user can have with [ErrName].
func CheckUserName(name string) error {
	low := strings.ToLower(name)
	if !userName.MatchString(name) || low == CommonNameRoot || low == CommonNameController || strings.HasPrefix(low, hostPrefix) {
		return fmt.Errorf("%q: %w", name, ErrName)
	}
	return nil
}

func (a *Authority) issueUser(csr []byte, name, org string) ([]byte, error) {
	if err := CheckUserName(name); err != nil {
		return nil, fmt.Errorf("issue user certificate: %w", err)
	}
	c, err := a.issue(csr, pkix.Name{CommonName: name, Organization: []string{org}}, nil, cmp.Or(a.lives.User, CertificateLifetime),
		x509.ExtKeyUsageClientAuth)
	if err != nil {
		return nil, fmt.Errorf("issue user certificate: %w", err)
	}
	return c, nil
}

// IssueHost signs a certificate for a host: CN = "host-<id>",
// O = "clocker:host", with the host's addresses and names as SANs. It serves
// as client and as server.
func (a *Authority) IssueHost(csr []byte, id string, sans []string) ([]byte, error) {
	if !hostID.MatchString(id) {
		return nil, fmt.Errorf("issue host certificate: %q: %w", id, ErrName)
	}
	c, err := a.issue(csr, pkix.Name{CommonName: HostCommonName(id), Organization: []string{OrgHost}}, sans, cmp.Or(a.lives.Host, CertificateLifetime),
		x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return nil, fmt.Errorf("issue host certificate: %w", err)
	}
	return c, nil
}

// IssueController signs the certificate a controller shows to its callers
// and to its fellows, with addresses and names as SANs.
func (a *Authority) IssueController(csr []byte, sans []string) ([]byte, error) {
	c, err := a.issue(csr, pkix.Name{CommonName: CommonNameController, Organization: []string{OrgController}}, sans, cmp.Or(a.lives.Controller, ControllerLifetime),
		x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)
	if err != nil {
		return nil, fmt.Errorf("issue controller certificate: %w", err)
	}
	return c, nil
}

// IssueRoot signs the client certificate with which a controller is etcd's
// superuser: CN = "root".
func (a *Authority) IssueRoot(csr []byte) ([]byte, error) {
	c, err := a.issue(csr, pkix.Name{CommonName: CommonNameRoot, Organization: []string{OrgController}}, nil, cmp.Or(a.lives.Controller, ControllerLifetime),
		x509.ExtKeyUsageClientAuth)
	if err != nil {
		return nil, fmt.Errorf("issue root certificate: %w", err)
	}
	return c, nil
}

func (a *Authority) issue(csr []byte, subject pkix.Name, sans []string, life time.Duration, usage ...x509.ExtKeyUsage) ([]byte, error) {
	pub, err := requestKey(csr)
	if err != nil {
		return nil, err
	}
	ips, names, err := splitSANs(sans)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	t := a.now().UTC()
	end := t.Add(life)
	if end.After(a.cert.NotAfter) {
		end = a.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: subject,
		NotBefore: t.Add(-backdate), NotAfter: end,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: usage,
		BasicConstraintsValid: true,
		IPAddresses:           ips, DNSNames: names,
	}, a.cert, pub, a.key)
	if err != nil {
		return nil, err
	}
	return encodeCert(der), nil
}

// RequestKey returns the public key of a certificate request in DER form; the
// error matches [ErrRequest] when the request cannot be signed.
func RequestKey(csr []byte) ([]byte, error) {
	pub, err := requestKey(csr)
	if err != nil {
		return nil, err
	}
	return x509.MarshalPKIXPublicKey(pub)
}

// requestKey returns the public key of a PEM certificate request whose
// bearer has shown, by its signature, to hold the private one.
func requestKey(csr []byte) (crypto.PublicKey, error) {
	block, rest := pem.Decode(csr)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, fmt.Errorf("%w: not a PEM certificate request", ErrRequest)
	}
	if len(strings.TrimSpace(string(rest))) > 0 {
		return nil, fmt.Errorf("%w: something follows the request", ErrRequest)
	}
	req, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	pub, ok := req.PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: the key is not ECDSA P-256", ErrRequest)
	}
	if err := req.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	return pub, nil
}

// dnsName is host names (RFC 1123 §2.1), and underscores, which are in use.
var dnsName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*$`)

func splitSANs(sans []string) (ips []net.IP, names []string, err error) {
	seen := map[string]bool{}
	for _, s := range sans {
		if s == "" || seen[s] {
			continue
		}
		seen[s] = true
		if ip := net.ParseIP(s); ip != nil {
			ips = append(ips, ip)
			continue
		}
		if len(s) > 253 || !dnsName.MatchString(s) {
			return nil, nil, fmt.Errorf("%q: %w", s, ErrName)
		}
		names = append(names, s)
	}
	return ips, names, nil
}

// newSerial returns a random positive serial of at most 127 bits (RFC 5280
// §4.1.2.2 allows 20 octets).
func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	return n.Add(n, big.NewInt(1)), nil
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
