// Package hostconfig is the file that a host of a fleet is told everything by:
// /etc/clocker/host.json, written when the host is adopted and read by its
// agent and its network plugin. It names the fleet, the host, where etcd and
// the controllers are, and which certificates to use. It never holds a
// secret itself; the key file beside it does.
package hostconfig

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Dir is where a host keeps its configuration, and StateDir where agent and
// plugins keep state that must survive a restart.
const (
	Dir      = "/etc/clocker"
	StateDir = "/var/lib/clocker"
	// RunDir holds the sockets by which the parts on one host reach each
	// other.
	RunDir = "/run/clocker"
)

// DNSAddress is the address on which every host's agent answers DNS. It is
// link-local on purpose: it means "this host" everywhere and never leaves it.
const DNSAddress = "169.254.53.53"

// DNSAddress6 is the same for containers without IPv4: of the unique local
// addresses (RFC 4193), as a link-local one would need a route per link.
const DNSAddress6 = "fd00:c10c::53"

// Config is the content of host.json.
type Config struct {
	Fleet  string `json:"fleet"`
	HostID string `json:"hostID"`
	Name   string `json:"name"`
	// Address is the host's underlay address.
	Address string `json:"address"`
	// Etcd and Controllers are URLs: https://address:port.
	Etcd        []string `json:"etcd"`
	Controllers []string `json:"controllers"`
	// CAFile, CertFile and KeyFile are relative to the directory of the
	// file. With EtcdCAFile and its fellows empty they serve for etcd too;
	// an etcd cluster of the user's own may want others, or none when its
	// URLs are http://.
	CAFile       string `json:"caFile"`
	CertFile     string `json:"certFile"`
	KeyFile      string `json:"keyFile"`
	EtcdCAFile   string `json:"etcdCAFile,omitempty"`
	EtcdCertFile string `json:"etcdCertFile,omitempty"`
	EtcdKeyFile  string `json:"etcdKeyFile,omitempty"`
	// SoftwareChecksums has the host work out checksums of packets between
	// hosts itself, where a network card or hypervisor spoils those in tunnels.
	SoftwareChecksums bool `json:"softwareChecksums,omitempty"`
	// Dir is the directory the file was read from; not stored.
	Dir string `json:"-"`
}

// ErrNotAdopted means that the host belongs to no fleet (yet).
var ErrNotAdopted = errors.New("host belongs to no fleet: add it with docker clocker host add")

// Load reads host.json from a directory.
func Load(dir string) (*Config, error) {
	b, err := os.ReadFile(filepath.Join(dir, "host.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNotAdopted
	}
	if err != nil {
		return nil, fmt.Errorf("read host configuration: %w", err)
	}
	c := &Config{Dir: dir}
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("read host configuration: %w", err)
	}
	return c, nil
}

// Wait loads host.json as soon as there is one. It looks at the directory
// again every interval until ctx ends.
func Wait(ctx context.Context, dir string, interval time.Duration) (*Config, error) {
	for {
		c, err := Load(dir)
		if !errors.Is(err, ErrNotAdopted) {
			return c, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(interval):
		}
	}
}

// TLS returns the host's mutual TLS 1.3 configuration for calls to
// controllers.
func (c *Config) TLS() (*tls.Config, error) {
	return c.tls(c.CAFile, c.CertFile, c.KeyFile)
}

func (c *Config) tls(ca, cert, key string) (*tls.Config, error) {
	pem, err := os.ReadFile(filepath.Join(c.Dir, ca))
	if err != nil {
		return nil, fmt.Errorf("read fleet CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read fleet CA: %s holds no certificate", ca)
	}
	t := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}
	if cert != "" {
		pair, err := c.pair(cert, key)
		if now, loadErr := Load(c.Dir); err != nil && loadErr == nil && cert == c.CertFile && now.CertFile != cert {
			// The first renewal since c was read puts the pair elsewhere.
			pair, err = c.pair(now.CertFile, now.KeyFile)
		}
		if err != nil {
			return nil, fmt.Errorf("read host certificate: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// pair reads a certificate and its key, from one file at one time where they
// share it: it may be replaced at any moment.
func (c *Config) pair(cert, key string) (tls.Certificate, error) {
	both, err := os.ReadFile(filepath.Join(c.Dir, cert))
	if err != nil {
		return tls.Certificate{}, err
	}
	secret := both
	if key != cert {
		if secret, err = os.ReadFile(filepath.Join(c.Dir, key)); err != nil {
			return tls.Certificate{}, err
		}
	}
	return tls.X509KeyPair(both, secret)
}
