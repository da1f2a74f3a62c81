package testbed

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/crypto/ssh"
)

// authority is a testbed's certificate authority. It signs engines, the hub's
// image front and the client of the tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

const certLife = 10 * 365 * 24 * time.Hour

// newAuthority makes an authority and writes its certificate to dir/ca.pem and
// its key to dir/ca-key.pem.
func newAuthority(dir, bed string) (*authority, error) {
	a := &authority{cert: &x509.Certificate{
		Subject:               pkix.Name{CommonName: "clocker testbed " + bed},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	der, err := a.sign(a.cert, &a.key.PublicKey, a.cert)
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	if err == nil {
		err = errors.Join(writePEM(dir, "ca.pem", "CERTIFICATE", der, 0o644), writeKey(dir, "ca-key.pem", a.key))
	}
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	return a, nil
}

// openAuthority reads back what newAuthority wrote.
func openAuthority(dir string) (*authority, error) {
	der, err := readPEM(dir, "ca.pem")
	if err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	if der, err = readPEM(dir, "ca-key.pem"); err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	return &authority{cert, key.(*ecdsa.PrivateKey)}, nil
}

func (a *authority) sign(t *x509.Certificate, public crypto.PublicKey, parent *x509.Certificate) ([]byte, error) {
	var err error
	if t.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, err
	}
	now := time.Now()
	t.NotBefore, t.NotAfter = now.Add(-time.Hour), now.Add(certLife)
	return x509.CreateCertificate(rand.Reader, t, parent, public, a.key)
}

// issue writes ca.pem, cert.pem and key.pem to dir: a client's without names,
// a server's (that may be a client too) with.
func (a *authority) issue(dir, cn string, ips []netip.Addr, names []string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("issue certificate: %w", err)
	}
	t := &x509.Certificate{
		Subject:     pkix.Name{CommonName: cn},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		DNSNames:    names,
	}
	for _, ip := range ips {
		t.IPAddresses = append(t.IPAddresses, net.IP(ip.AsSlice()))
	}
	if len(ips)+len(names) > 0 {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	der, err := a.sign(t, &key.PublicKey, a.cert)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = errors.Join(
			writePEM(dir, "ca.pem", "CERTIFICATE", a.cert.Raw, 0o644),
			writePEM(dir, "cert.pem", "CERTIFICATE", der, 0o644),
			writeKey(dir, "key.pem", key))
	}
	if err != nil {
		return fmt.Errorf("issue certificate: %w", err)
	}
	return nil
}

func writeKey(dir, name string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(dir, name, "PRIVATE KEY", der, 0o600)
}

func writePEM(dir, name, kind string, der []byte, mode os.FileMode) error {
	return os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
}

func readPEM(dir, name string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	p, _ := pem.Decode(b)
	if p == nil {
		return nil, fmt.Errorf("%s: no PEM block", name)
	}
	return p.Bytes, nil
}

// newSSHKey writes an ed25519 key pair as ssh-keygen does: path, path.pub.
func newSSHKey(path, comment string) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make ssh key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return fmt.Errorf("make ssh key: %w", err)
	}
	pub, err := ssh.NewPublicKey(public)
	if err != nil {
		return fmt.Errorf("make ssh key: %w", err)
	}
	err = errors.Join(
		os.MkdirAll(filepath.Dir(path), 0o755),
		os.WriteFile(path, pem.EncodeToMemory(block), 0o600),
		os.WriteFile(path+".pub", ssh.MarshalAuthorizedKey(pub), 0o644))
	if err != nil {
		return fmt.Errorf("make ssh key: %w", err)
	}
	return nil
}
