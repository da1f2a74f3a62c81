package wireguard

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/atomicwriter"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// KeyFile is the name of the file with the host's private key, in the
// directory for state. It never leaves the host; others are told the public
// key.
const KeyFile = "wireguard.key"

// Key reads the host's key from the directory, or makes it. A file that was
// lost makes a new key, which the other hosts learn as they learned the first;
// one that cannot be read as a key is an error, as somebody may want it back.
func Key(dir string) (wgtypes.Key, error) {
	path := filepath.Join(dir, KeyFile)
	b, err := os.ReadFile(path)
	if err == nil {
		k, err := wgtypes.ParseKey(strings.TrimSpace(string(b)))
		if err != nil {
			return k, fmt.Errorf("read key %s: %w: remove the file to have a new key made", path, err)
		}
		return k, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return wgtypes.Key{}, fmt.Errorf("read key: %w", err)
	}
	k, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return k, fmt.Errorf("make key: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return k, fmt.Errorf("keep key: %w", err)
	}
	// Whole or not at all, and on the disk, before anybody is told of it.
	if err := atomicwriter.WriteFile(path, []byte(k.String()+"\n"), 0o600); err != nil {
		return k, fmt.Errorf("keep key: %w", err)
	}
	return k, nil
}
