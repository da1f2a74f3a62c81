package agent

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/api/apitest"
	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/hostconfig"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
	"clocker.io/clocker/pkg/store/storetest"
)

// renewals is a controller that renews hosts' certificates, and looks who asks.
type renewals struct {
	mu    sync.Mutex // guards the following fields
	by    *ca.Authority
	asked []string
}

func (r *renewals) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, q.TLS.PeerCertificates[0].SerialNumber.Text(16))
	var in api.RenewRequest
	_ = json.NewDecoder(q.Body).Decode(&in)
	cert, err := r.by.IssueHost([]byte(in.CSR), "h1", []string{"192.0.2.1"})
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	_ = json.NewEncoder(w).Encode(api.Renewal{Certificate: string(cert), CA: string(r.by.Bundle())})
}

func TestHostFollowsItsMembership(t *testing.T) {
	f := apitest.NewFleet(t)
	ctl := &renewals{by: f.Authority()}
	srv := f.Serve(ctl)
	dir := t.TempDir()
	key, csr, err := ca.NewKey()
	assert.NilError(t, err)
	cert, err := f.Authority().IssueHost(csr, "h1", nil)
	assert.NilError(t, err)
	for name, data := range map[string][]byte{"ca.pem": f.CA, "cert.pem": cert, "key.pem": key} {
		assert.NilError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	cfg := &hostconfig.Config{
		Fleet: "f", HostID: "h1", Name: "h1", Controllers: []string{srv.URL}, Etcd: []string{"https://old:7481"},
		CAFile: "ca.pem", CertFile: "cert.pem", KeyFile: "key.pem", Dir: dir,
	}
	assert.NilError(t, cfg.Save())

	st := store.New(storetest.Start(t), "f")
	var mu sync.Mutex
	var later time.Duration
	var controllers []string
	m := newMembership(identity{Fleet: "f", Host: "h1"}, st, dir, slog.New(slog.DiscardHandler), func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return time.Now().Add(later)
	}, func(c []string) { mu.Lock(); defer mu.Unlock(); controllers = c })
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { m.run(ctx) })
	defer func() { cancel(); running.Wait() }()
	serial := func() string {
		c, err := cfg.Now().TLS()
		assert.NilError(t, err) // at every moment the pair belongs together
		leaf, err := x509.ParseCertificate(c.Certificates[0].Certificate[0])
		assert.NilError(t, err)
		return leaf.SerialNumber.Text(16)
	}
	first := serial()
	signer, err := ca.Fingerprint(f.CA)
	assert.NilError(t, err)
	tell := func(v record.Membership) {
		t.Helper()
		_, err := st.Txn().Put(st.Keys.HostMembership("h1"), v).Commit(t.Context())
		assert.NilError(t, err)
	}

	// Another member of etcd and another controller.
	want := record.Membership{Etcd: []string{"https://new:7481", "https://old:7481"}, Controllers: []string{srv.URL, "https://second"}, CA: string(f.CA), Signer: signer}
	tell(want)
	eventually(t, func() bool { return len(cfg.Now().Etcd) == 2 })
	eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return len(controllers) == 2 })
	assert.Equal(t, serial(), first, "a certificate that holds is kept")

	// Most of the certificate's time is over.
	mu.Lock()
	later = ca.CertificateLifetime * 3 / 4
	mu.Unlock()
	tell(want)
	eventually(t, func() bool { return serial() != first })
	assert.Equal(t, cfg.Now().CertFile, hostconfig.IdentityFile)
	st1, err := os.Stat(filepath.Join(dir, hostconfig.IdentityFile))
	assert.NilError(t, err)
	assert.Equal(t, st1.Mode().Perm(), os.FileMode(0o600))

	// Another authority signs: both are trusted, and a new certificate comes.
	mu.Lock()
	later = 0
	mu.Unlock()
	second := serial()
	next, err := ca.Create("f", time.Now)
	assert.NilError(t, err)
	ctl.mu.Lock()
	ctl.by = next
	ctl.mu.Unlock()
	want.CA = string(next.Certificate()) + string(f.CA)
	want.Signer, err = ca.Fingerprint(next.Certificate())
	assert.NilError(t, err)
	tell(want)
	eventually(t, func() bool { return serial() != second })
	c, err := cfg.Now().TLS()
	assert.NilError(t, err)
	leaf, err := x509.ParseCertificate(c.Certificates[0].Certificate[0])
	assert.NilError(t, err)
	_, err = leaf.Verify(x509.VerifyOptions{Roots: next.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	assert.NilError(t, err)
	ctl.mu.Lock()
	defer ctl.mu.Unlock()
	assert.DeepEqual(t, ctl.asked, []string{first, second})
}

func eventually(t *testing.T, f func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !f(); {
		if time.Now().After(end) {
			t.Fatal("not within 60 s")
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}
