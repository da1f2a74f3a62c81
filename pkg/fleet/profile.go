package fleet

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"clocker.io/clocker/pkg/api"
)

// The names of the files of a profile. The directory has mode 0700, the key
// 0600.
const (
	profileFile = "fleet.json"
	profileCA   = "ca.pem"
	profileCert = "cert.pem"
	profileKey  = "key.pem"
	currentFile = "current"
)

// Profile is what the user's machine keeps of a fleet, in the directory
// clocker/<fleet>/ of docker's configuration directory: how to reach its
// controllers and as whom. It gives whoever reads it the user's rights.
type Profile struct {
	Name string `json:"name"`
	// Controllers are URLs: https://address:port.
	Controllers []string `json:"controllers"`
	// User is the certificate's common name.
	User string `json:"user"`
	// Access tells, per host name, how the host's engine is reached from this
	// machine. It holds paths, never their content. The controller's engine
	// is under the empty name.
	Access map[string]Access `json:"access,omitempty"`
	// Making is true from before anything is made until Init is through: a
	// fleet that an interrupted Init left.
	Making    bool      `json:"making,omitempty"`
	CreatedAt time.Time `json:"createdAt"`

	// CA, Cert and Key are PEM; kept in files of their own.
	CA   []byte `json:"-"`
	Cert []byte `json:"-"`
	Key  []byte `json:"-"`
}

// Access tells how an engine is reached.
type Access struct {
	Endpoint   string `json:"endpoint,omitempty"`
	CertDir    string `json:"certDir,omitempty"`
	KnownHosts string `json:"sshKnownHosts,omitempty"`
	Identity   string `json:"sshIdentity,omitempty"`
}

func fleetsDir(dir string) string { return filepath.Join(dir, "clocker") }

// ProfileDir is where the profile of a fleet is; dir is docker's
// configuration directory.
func ProfileDir(dir, name string) string { return filepath.Join(fleetsDir(dir), name) }

// Open reads the profile of the named fleet; an empty name is the current
// one, or the only one when none was chosen. dir is docker's configuration
// directory (~/.docker, or DOCKER_CONFIG). The error matches [ErrNoFleet] when
// there is none.
func Open(dir, name string) (*Profile, error) {
	if name == "" {
		var err error
		if name, err = Current(dir); err != nil {
			return nil, err
		}
	}
	if err := CheckName("fleet", name); err != nil {
		return nil, err
	}
	d := ProfileDir(dir, name)
	b, err := os.ReadFile(filepath.Join(d, profileFile))
	if errors.Is(err, fs.ErrNotExist) {
		known, _ := List(dir)
		if len(known) == 0 {
			return nil, fmt.Errorf("fleet %q: %w: make one with docker clocker init", name, ErrNoFleet)
		}
		return nil, fmt.Errorf("fleet %q: %w: this machine knows %s", name, ErrNoFleet, strings.Join(known, ", "))
	}
	if err != nil {
		return nil, fmt.Errorf("read fleet %s: %w", name, err)
	}
	p := &Profile{}
	if err := json.Unmarshal(b, p); err != nil {
		return nil, fmt.Errorf("read fleet %s: %w", name, err)
	}
	if p.Name != name {
		return nil, fmt.Errorf("read fleet %s: %s is about fleet %q", name, filepath.Join(d, profileFile), p.Name)
	}
	for _, f := range []struct {
		name string
		data *[]byte
	}{{profileCA, &p.CA}, {profileCert, &p.Cert}, {profileKey, &p.Key}} {
		if *f.data, err = os.ReadFile(filepath.Join(d, f.name)); err != nil {
			return nil, fmt.Errorf("read fleet %s: %w", name, err)
		}
	}
	if cert, key := splitPair(p.Cert); key != nil {
		p.Cert, p.Key = cert, key
	}
	return p, nil
}

// splitPair takes PEM of a certificate and its key apart; key is nil when there
// is none.
func splitPair(both []byte) (cert, key []byte) {
	for block, rest := pem.Decode(both); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			cert = append(cert, pem.EncodeToMemory(block)...)
		} else {
			key = append(key, pem.EncodeToMemory(block)...)
		}
	}
	return cert, key
}

// Current returns the name of the fleet that is used when none is named. The
// error matches [ErrNoFleet] when there is none.
func Current(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(fleetsDir(dir), currentFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read current fleet: %w", err)
	}
	if name := strings.TrimSpace(string(b)); name != "" {
		return name, nil
	}
	known, err := List(dir)
	if err != nil {
		return "", err
	}
	switch len(known) {
	case 0:
		return "", fmt.Errorf("%w: make one with docker clocker init", ErrNoFleet)
	case 1:
		return known[0], nil
	default:
		return "", fmt.Errorf("%w chosen: choose one with --fleet: %s", ErrNoFleet, strings.Join(known, ", "))
	}
}

// List returns the names of the fleets that the user's machine knows, sorted.
func List(dir string) ([]string, error) {
	es, err := os.ReadDir(fleetsDir(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list fleets: %w", err)
	}
	var out []string
	for _, e := range es {
		if !e.IsDir() || CheckName("fleet", e.Name()) != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(fleetsDir(dir), e.Name(), profileFile)); err == nil {
			out = append(out, e.Name())
		}
	}
	sort.Strings(out)
	return out, nil
}

// Use makes a fleet the current one.
func Use(dir, name string) error {
	if _, err := Open(dir, name); err != nil {
		return err
	}
	return writeFile(filepath.Join(fleetsDir(dir), currentFile), []byte(name+"\n"), 0o600)
}

// Save writes the profile; each file is replaced as a whole. fleet.json comes
// last: a profile without it does not exist. The certificate's file holds the key
// too, so that there is no moment at which one is without the other.
func (p *Profile) Save(dir string) error {
	if err := CheckName("fleet", p.Name); err != nil {
		return err
	}
	d := ProfileDir(dir, p.Name)
	if err := os.MkdirAll(d, 0o700); err != nil {
		return fmt.Errorf("save fleet %s: %w", p.Name, err)
	}
	if err := os.Chmod(d, 0o700); err != nil {
		return fmt.Errorf("save fleet %s: %w", p.Name, err)
	}
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return fmt.Errorf("save fleet %s: %w", p.Name, err)
	}
	for _, f := range []struct {
		name string
		data []byte
		mode fs.FileMode
	}{
		{profileCert, slices.Concat(p.Cert, p.Key), 0o600},
		{profileKey, p.Key, 0o600},
		{profileCA, p.CA, 0o644},
		{profileFile, append(b, '\n'), 0o600},
	} {
		if err := writeFile(filepath.Join(d, f.name), f.data, f.mode); err != nil {
			return fmt.Errorf("save fleet %s: %w", p.Name, err)
		}
	}
	return nil
}

// Remove forgets a fleet. It is no error when there is none.
func Remove(dir, name string) error {
	if err := CheckName("fleet", name); err != nil {
		return err
	}
	cur, err := os.ReadFile(filepath.Join(fleetsDir(dir), currentFile))
	if err == nil && strings.TrimSpace(string(cur)) == name {
		if err := os.Remove(filepath.Join(fleetsDir(dir), currentFile)); err != nil {
			return fmt.Errorf("forget fleet %s: %w", name, err)
		}
	}
	d := ProfileDir(dir, name)
	// fleet.json first: what is left of an interrupted removal is no profile.
	if err := os.Remove(filepath.Join(d, profileFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget fleet %s: %w", name, err)
	}
	if err := os.RemoveAll(d); err != nil {
		return fmt.Errorf("forget fleet %s: %w", name, err)
	}
	_ = os.Remove(fleetsDir(dir)) // goes with the last fleet
	return nil
}

// Forget removes what this machine knows of a fleet, and nothing of the fleet
// itself. The error matches [ErrNoFleet] when there is none of that name, and
// [ErrBusy] while another command of this user changes profiles.
func Forget(dir, name string) error {
	unlock, err := lock(dir, false)
	if err != nil {
		return err
	}
	defer unlock()
	known, err := List(dir)
	if err != nil {
		return err
	}
	if !slices.Contains(known, name) {
		return fmt.Errorf("forget fleet %q: %w", name, ErrNoFleet)
	}
	return Remove(dir, name)
}

// Remember writes down how a host's engine is reached from this machine, into
// the profile as it is by now: other commands may have changed it. A zero
// Access forgets the host.
func Remember(dir, fleet, host string, a Access) error {
	unlock, err := lock(dir, true)
	if err != nil {
		return err
	}
	defer unlock()
	p, err := Open(dir, fleet)
	if err != nil {
		return err
	}
	if a == (Access{}) {
		delete(p.Access, host)
	} else {
		if p.Access == nil {
			p.Access = map[string]Access{}
		}
		p.Access[host] = a
	}
	return p.Save(dir)
}

// lock keeps other commands of this user from changing profiles, until unlock
// is called or the program ends. Without wait it gives [ErrBusy] at once when
// another command has it.
func lock(dir string, wait bool) (unlock func(), err error) {
	d := fleetsDir(dir)
	if err := os.MkdirAll(d, 0o700); err != nil {
		return nil, fmt.Errorf("lock %s: %w", d, err)
	}
	f, err := os.Open(d)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", d, err)
	}
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	err = unix.Flock(int(f.Fd()), how)
	if errors.Is(err, unix.EWOULDBLOCK) {
		_ = f.Close() // nothing was read
		return nil, fmt.Errorf("lock %s: %w", d, ErrBusy)
	}
	if err != nil {
		_ = f.Close() // as above
		return nil, fmt.Errorf("lock %s: %w", d, err)
	}
	return func() { _ = f.Close() }, nil // closing unlocks
}

// TLS is the configuration with which this user calls the fleet's controllers.
func (p *Profile) TLS() (*tls.Config, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(p.CA) {
		return nil, fmt.Errorf("use fleet %s: its %s holds no certificate", p.Name, profileCA)
	}
	pair, err := tls.X509KeyPair(p.Cert, p.Key)
	if err != nil {
		return nil, fmt.Errorf("use fleet %s: %w", p.Name, err)
	}
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}, nil
}

// Client returns a client of the fleet's controllers, which the caller
// closes.
func (p *Profile) Client() (*api.Client, error) {
	t, err := p.TLS()
	if err != nil {
		return nil, err
	}
	return api.NewClient(p.Controllers, t), nil
}

// writeFile replaces a file by a new one of the given mode, in one step.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // it is gone when the rename went well
	if err := f.Chmod(mode); err != nil {
		_ = f.Close()
		return err
	}
	if _, err := f.Write(data); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
