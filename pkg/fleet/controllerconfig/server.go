package controllerconfig

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"clocker.io/clocker/pkg/fleet/ca"
)

// ServerTLS is what the API listens with: TLS 1.3. Callers that show a
// certificate must show one of the fleet; who shows none may call the few paths
// by which one joins, which is the API's to enforce. The authorities are sent
// along with the certificate, for callers that know one by its fingerprint
// only. Files that change are used from the next connection on; while they
// cannot be read, what was read before is.
func ServerTLS(dir string) (*tls.Config, error) {
	s := &serverFiles{dir: dir}
	first, err := s.read()
	if err != nil {
		return nil, err
	}
	s.config, s.stamp = first, s.stampNow()
	top := first.Clone()
	top.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.now(), nil }
	return top, nil
}

// serverFiles reads a controller's files again when they have changed.
type serverFiles struct {
	dir string

	mu     sync.Mutex // guards the following fields
	stamp  string
	config *tls.Config
}

func (s *serverFiles) now() *tls.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	if stamp := s.stampNow(); stamp != s.stamp {
		// A pair half written does not match: the next connection looks again.
		if c, err := s.read(); err == nil {
			s.config, s.stamp = c, stamp
		}
	}
	return s.config
}

// stampNow changes when a file does.
func (s *serverFiles) stampNow() string {
	out := ""
	for _, name := range []string{ca.CertificateFile, CertFile, KeyFile} {
		if st, err := os.Stat(filepath.Join(s.dir, name)); err == nil {
			out += fmt.Sprintf("%s/%d ", st.ModTime().Format(time.RFC3339Nano), st.Size())
		}
	}
	return out
}

func (s *serverFiles) read() (*tls.Config, error) {
	bundle, err := os.ReadFile(filepath.Join(s.dir, ca.CertificateFile))
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	pool, err := Pool(filepath.Join(s.dir, ca.CertificateFile))
	if err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(s.dir, CertFile), filepath.Join(s.dir, KeyFile))
	if err != nil {
		return nil, fmt.Errorf("read controller certificate: %w", err)
	}
	if len(pair.Certificate) == 0 {
		return nil, errors.New("read controller certificate: it is empty")
	}
	for {
		var block *pem.Block
		if block, bundle = pem.Decode(bundle); block == nil {
			break
		}
		pair.Certificate = append(pair.Certificate, block.Bytes)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{pair},
		ClientCAs:    pool,
		ClientAuth:   tls.VerifyClientCertIfGiven,
		MinVersion:   tls.VersionTLS13,
		NextProtos:   []string{"h2", "http/1.1"},
	}, nil
}
