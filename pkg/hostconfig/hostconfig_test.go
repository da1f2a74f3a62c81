package hostconfig_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/hostconfig"
)

// Whoever reads the host's certificate while it is replaced, for the first time
// or again, has one with its own key.
func TestCertificateIsReadWithItsKey(t *testing.T) {
	authority, err := ca.Create("f", time.Now)
	assert.NilError(t, err)
	issue := func() (cert, key []byte) {
		key, csr, err := ca.NewKey()
		assert.NilError(t, err)
		cert, err = authority.IssueHost(csr, "h1", nil)
		assert.NilError(t, err)
		return cert, key
	}
	var certs, keys [2][]byte
	for i := range certs {
		certs[i], keys[i] = issue()
	}
	bundle := authority.Certificate()
	for range 20 {
		c := &hostconfig.Config{Fleet: "f", HostID: "h1", CAFile: "ca.pem", CertFile: "cert.pem", KeyFile: "key.pem", Dir: t.TempDir()}
		for name, data := range map[string][]byte{"ca.pem": bundle, "cert.pem": certs[0], "key.pem": keys[0]} {
			assert.NilError(t, os.WriteFile(filepath.Join(c.Dir, name), data, 0o600))
		}
		assert.NilError(t, c.Save())
		done := make(chan error, 1)
		go func() {
			w := *c
			for i := range 10 {
				if err := w.SaveIdentity(certs[(i+1)%2], keys[(i+1)%2]); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
		for ended := false; !ended; {
			select {
			case err := <-done:
				assert.NilError(t, err)
				ended = true
			default:
			}
			now, err := hostconfig.Load(c.Dir)
			assert.NilError(t, err)
			_, err = now.TLS()
			assert.NilError(t, err)
			_, err = c.TLS() // as it was read long ago
			assert.NilError(t, err)
		}
	}
}
