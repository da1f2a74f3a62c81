// Package controllerconfig is what a controller is told when it starts: the
// files that `docker clocker init` puts into its two directories. The
// configuration directory holds config.json, the fleet's CA certificate, the
// identity that opens the CA's key, and the controller's own certificates;
// the data directory holds the encrypted CA key and all that the controller
// itself keeps.
//
// It reads and writes files and nothing else; certificates are made by
// pkg/fleet/ca.
//
// Design page: docs/design/fleet.md.
package controllerconfig

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"clocker.io/clocker/pkg/fleet/ca"
)

// The directories of a controller container; `serve` takes them as --config
// and --data.
const (
	ConfigDir = "/config"
	DataDir   = "/data"
)

// The names of the files in the configuration directory; the CA's own are
// named in pkg/fleet/ca. Keys have mode 0600.
const (
	File = "config.json"
	// CertFile and KeyFile are what the API, and etcd's client and peer
	// ports, show.
	CertFile = "controller.pem"
	KeyFile  = "controller-key.pem"
	// RootCertFile and RootKeyFile make the controller etcd's superuser.
	RootCertFile = "root.pem"
	RootKeyFile  = "root-key.pem"
	// The files for an etcd cluster of the user's own.
	EtcdCAFile   = "etcd-ca.pem"
	EtcdCertFile = "etcd-cert.pem"
	EtcdKeyFile  = "etcd-key.pem"
)

// MemberFile is in the configuration directory. It has the id of the etcd member
// whose data the data directory holds. Kept apart from the data, it tells a
// directory that was wiped from one that was never used.
const MemberFile = "etcd-member"

// The files in the data directory that tell a controller to do something once
// before it serves.
const (
	// RestoreFile has a [Restore]; SnapshotFile is the etcd snapshot that
	// comes with it.
	RestoreFile  = "restore.json"
	SnapshotFile = "restore.snapshot"
	// RecoverFile has a [Restore]: this member goes on alone, with what it
	// has.
	RecoverFile = "recover.json"
)

// Restore is the content of [RestoreFile] and [RecoverFile].
type Restore struct {
	// ID tells one from another.
	ID string `json:"id"`
	// At is when it was ordered, Snapshot when the snapshot was taken; zero
	// for a recovery.
	At       time.Time `json:"at"`
	Snapshot time.Time `json:"snapshot,omitzero"`
}

// The ports of a controller unless its configuration says otherwise.
const (
	APIPort      = 7480
	EtcdPort     = 7481
	EtcdPeerPort = 7482
)

// Config is the content of config.json.
type Config struct {
	Fleet string `json:"fleet"`
	// Name is the controller's name among its fellows: its etcd member name.
	Name string `json:"name"`
	// Advertise is the address that users, hosts and fellows reach the
	// controller by, without a port.
	Advertise string `json:"advertise"`
	APIPort   int    `json:"apiPort"`
	// EtcdPort and EtcdPeerPort are those of the embedded etcd; meaningless
	// when Etcd is not empty.
	EtcdPort     int `json:"etcdPort"`
	EtcdPeerPort int `json:"etcdPeerPort"`
	// Etcd are the URLs of an etcd cluster of the user's own; empty means
	// that the controller embeds etcd.
	Etcd []string `json:"etcd,omitempty"`
	// EtcdTLS says that EtcdCAFile is there; EtcdClientCert that
	// EtcdCertFile and EtcdKeyFile are.
	EtcdTLS        bool `json:"etcdTLS,omitempty"`
	EtcdClientCert bool `json:"etcdClientCert,omitempty"`
	// Host and Endpoint are the fleet's host whose engine runs the controller,
	// and how the user reaches that engine; empty when not known.
	Host     string `json:"host,omitempty"`
	Endpoint string `json:"endpoint,omitempty"`
	// Cluster are the members of the embedded etcd that the controller joins
	// when it starts for the first time, itself among them, as etcd's
	// --initial-cluster has them; empty means that it begins a cluster.
	Cluster string `json:"cluster,omitempty"`
	// SANs are the addresses and names in the controller's certificate.
	SANs      []string  `json:"sans"`
	CreatedAt time.Time `json:"createdAt"`
}

// ErrNotConfigured means that the directory holds no config.json.
var ErrNotConfigured = errors.New("controller is not configured: make the fleet with docker clocker init")

// Load reads config.json from a configuration directory.
func Load(dir string) (*Config, error) {
	b, err := os.ReadFile(filepath.Join(dir, File))
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNotConfigured
	}
	if err != nil {
		return nil, fmt.Errorf("read controller configuration: %w", err)
	}
	return Parse(b)
}

// Parse reads the text of a config.json.
func Parse(b []byte) (*Config, error) {
	c := &Config{APIPort: APIPort, EtcdPort: EtcdPort, EtcdPeerPort: EtcdPeerPort}
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("read controller configuration: %w", err)
	}
	if c.Fleet == "" || c.Advertise == "" {
		return nil, errors.New("read controller configuration: fleet or advertise is missing")
	}
	return c, nil
}

// RootTLS is what the controller talks to its embedded etcd with. Certificate and
// key are read for each connection; authorities once.
func RootTLS(dir string) (*tls.Config, error) {
	pool, err := Pool(filepath.Join(dir, ca.CertificateFile))
	if err != nil {
		return nil, err
	}
	read := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, RootCertFile), filepath.Join(dir, RootKeyFile))
		if err != nil {
			return nil, fmt.Errorf("read root certificate: %w", err)
		}
		return &pair, nil
	}
	if _, err := read(nil); err != nil {
		return nil, err
	}
	return &tls.Config{GetClientCertificate: read, RootCAs: pool, MinVersion: tls.VersionTLS13}, nil
}

// Pool reads a pool of trusted certificates from a PEM file.
func Pool(path string) (*x509.CertPool, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("read CA: %s holds no certificate", path)
	}
	return p, nil
}
