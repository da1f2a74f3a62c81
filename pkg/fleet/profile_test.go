package fleet

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/fleet/ca"
)

func profile(t *testing.T, name string) *Profile {
	t.Helper()
	a, err := ca.Create(name, nil)
	assert.NilError(t, err)
	key, csr, err := ca.NewKey()
	assert.NilError(t, err)
	cert, err := a.IssueUser(csr, "admin")
	assert.NilError(t, err)
	return &Profile{
		Name: name, Controllers: []string{"https://10.0.0.7:7480"}, User: "admin",
		CreatedAt: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC),
		CA:        a.Certificate(), Cert: cert, Key: key,
	}
}

func TestProfileIsReadBackAsItWasSaved(t *testing.T) {
	dir := t.TempDir()
	p := profile(t, "demo")
	p.Access = map[string]Access{"": {Endpoint: "ssh://root@h1", Identity: "/k"}}
	assert.NilError(t, p.Save(dir))
	got, err := Open(dir, "demo")
	assert.NilError(t, err)
	assert.DeepEqual(t, got, p)
	cfg, err := got.TLS()
	assert.NilError(t, err)
	assert.Equal(t, len(cfg.Certificates), 1)

	for file, mode := range map[string]os.FileMode{"": 0o700, profileKey: 0o600, profileCert: 0o600, profileFile: 0o600} {
		st, err := os.Stat(filepath.Join(ProfileDir(dir, "demo"), file))
		assert.NilError(t, err)
		assert.Equal(t, st.Mode().Perm(), mode, file)
	}
	es, err := os.ReadDir(ProfileDir(dir, "demo"))
	assert.NilError(t, err)
	assert.Equal(t, len(es), 4, "no half-written file is left")
}

// Whoever dies in the middle of a renewal, or reads meanwhile, has a certificate
// and its own key.
func TestAProfileHalfReplacedHasAPair(t *testing.T) {
	dir := t.TempDir()
	old, next := profile(t, "demo"), profile(t, "demo")
	assert.NilError(t, old.Save(dir))
	path := filepath.Join(ProfileDir(dir, "demo"), profileKey)
	was, err := os.ReadFile(path)
	assert.NilError(t, err)
	assert.NilError(t, next.Save(dir))
	assert.NilError(t, os.WriteFile(path, was, 0o600))
	got, err := Open(dir, "demo")
	assert.NilError(t, err)
	_, err = got.TLS()
	assert.NilError(t, err)
	assert.DeepEqual(t, got.Key, next.Key)
	// As an older release writes them.
	cert := filepath.Join(ProfileDir(dir, "demo"), profileCert)
	assert.NilError(t, os.WriteFile(cert, old.Cert, 0o644))
	got, err = Open(dir, "demo")
	assert.NilError(t, err)
	assert.DeepEqual(t, got.Cert, old.Cert)
	assert.DeepEqual(t, got.Key, old.Key)
}

func TestTheOnlyFleetIsCurrentUntilOneIsChosen(t *testing.T) {
	dir := t.TempDir()
	_, err := Open(dir, "")
	assert.ErrorIs(t, err, ErrNoFleet)
	assert.ErrorContains(t, err, "docker clocker init")
	assert.NilError(t, profile(t, "one").Save(dir))
	p, err := Open(dir, "")
	assert.NilError(t, err)
	assert.Equal(t, p.Name, "one")
	assert.NilError(t, profile(t, "two").Save(dir))
	_, err = Open(dir, "")
	assert.ErrorIs(t, err, ErrNoFleet)
	assert.ErrorContains(t, err, "one, two")
	assert.NilError(t, Use(dir, "two"))
	p, err = Open(dir, "")
	assert.NilError(t, err)
	assert.Equal(t, p.Name, "two")
	assert.ErrorIs(t, Use(dir, "three"), ErrNoFleet)

	assert.NilError(t, Remove(dir, "two"))
	assert.NilError(t, Remove(dir, "two"), "forgetting twice is no error")
	p, err = Open(dir, "")
	assert.NilError(t, err)
	assert.Equal(t, p.Name, "one")
}

func TestNamesThatWouldLeaveTheDirectoryAreRefused(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"../x", "a/b", ".", "A", "a_b", "-a", "a-", string(make([]byte, 64))} {
		_, err := Open(dir, name)
		assert.ErrorIs(t, err, ErrName, "%q", name)
		assert.ErrorIs(t, Remove(dir, name), ErrName, "%q", name)
		assert.ErrorIs(t, (&Profile{Name: name}).Save(dir), ErrName, "%q", name)
	}
}

func TestAProfileThatIsNotCompleteDoesNotExist(t *testing.T) {
	dir := t.TempDir()
	assert.NilError(t, profile(t, "demo").Save(dir))
	assert.NilError(t, os.Remove(filepath.Join(ProfileDir(dir, "demo"), profileFile)))
	names, err := List(dir)
	assert.NilError(t, err)
	assert.Equal(t, len(names), 0)
	_, err = Open(dir, "demo")
	assert.ErrorIs(t, err, ErrNoFleet)
}

func TestOneCommandAtATimeChangesFleets(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lock(dir, false)
	assert.NilError(t, err)
	_, err = lock(dir, false)
	assert.ErrorIs(t, err, ErrBusy)
	unlock()
	unlock, err = lock(dir, false)
	assert.NilError(t, err)
	unlock()

	assert.NilError(t, profile(t, "demo").Save(dir))
	assert.NilError(t, Remember(dir, "demo", "h1", Access{Endpoint: "ssh://h1"}))
	p, err := Open(dir, "demo")
	assert.NilError(t, err)
	assert.Equal(t, p.Access["h1"].Endpoint, "ssh://h1")
	assert.NilError(t, Remember(dir, "demo", "h1", Access{}))
	p, err = Open(dir, "demo")
	assert.NilError(t, err)
	assert.Equal(t, len(p.Access), 0)
}

func TestForgetTouchesOneProfileOnly(t *testing.T) {
	dir := t.TempDir()
	assert.NilError(t, profile(t, "demo").Save(dir))
	assert.NilError(t, profile(t, "other").Save(dir))
	assert.NilError(t, Forget(dir, "demo"))
	names, err := List(dir)
	assert.NilError(t, err)
	assert.DeepEqual(t, names, []string{"other"})
	assert.ErrorIs(t, Forget(dir, "demo"), ErrNoFleet)
	unlock, err := lock(dir, false)
	assert.NilError(t, err)
	defer unlock()
	assert.ErrorIs(t, Forget(dir, "other"), ErrBusy)
}
