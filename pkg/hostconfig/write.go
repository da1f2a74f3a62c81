package hostconfig

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// IdentityFile holds a renewed certificate and its key, both, so that one
// rename replaces the pair.
const IdentityFile = "identity.pem"

// Save writes host.json into the configuration's directory, in one step.
func (c *Config) Save() error {
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("write host configuration: %w", err)
	}
	return c.replace("host.json", append(text, '\n'), 0o644)
}

// SaveCA replaces the authorities that the host trusts.
func (c *Config) SaveCA(bundle []byte) error { return c.replace(c.CAFile, bundle, 0o644) }

// certificateFile is the certificate alone, for whoever wants to look at it.
const certificateFile = "cert.pem"

// SaveIdentity replaces the host's certificate and key, both PEM.
func (c *Config) SaveIdentity(cert, key []byte) error {
	both := append(append([]byte{}, cert...), key...)
	if err := c.replace(IdentityFile, both, 0o600); err != nil {
		return err
	}
	if c.CertFile != IdentityFile {
		c.CertFile, c.KeyFile = IdentityFile, IdentityFile
		if err := c.Save(); err != nil {
			return err
		}
	}
	return c.replace(certificateFile, cert, 0o644)
}

func (c *Config) replace(name string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(c.Dir, "."+name+"-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // it is gone when the rename went well
	err = f.Chmod(mode)
	if err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		err = f.Sync()
	}
	if end := f.Close(); err == nil {
		err = end
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(c.Dir, name))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
