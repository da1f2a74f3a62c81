package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"clocker.io/clocker/netplugin/bundle"
	"clocker.io/clocker/pkg/image"
	"clocker.io/clocker/pkg/version"
)

// EnvLib names a directory in which clocker-net is looked for.
const EnvLib = "CLOCKER_LIB"

// Build says what is carried to engines. The zero value means: this very
// program and the network plugin beside it.
type Build struct {
	// Version tags the image; empty means pkg/version's.
	Version string
	// Executable is the docker-clocker binary that becomes the image; empty
	// means this program's own file. It must be a static executable for
	// Linux and the engine's architecture.
	Executable string
	// Plugin is the clocker-net binary; empty means it is looked for in
	// $CLOCKER_LIB, beside Executable, in ../lib/clocker from there, in
	// /usr/local/lib/clocker and in /usr/lib/clocker.
	Plugin string
}

// Kit is what is carried to engines, made ready once for any number of them.
// It is safe for concurrent use.
type Kit struct {
	// Version tags image and plugin.
	Version string
	// Image is what controller, agent and probes run from.
	Image *image.Image
	// plugin is the path of clocker-net; empty when pluginErr says why there
	// is none, which only matters to who adds a host.
	plugin    string
	pluginSum string
	pluginErr error
}

// NewKit reads the programs. A plugin that cannot be found is no error until
// a host is added.
func NewKit(b Build) (*Kit, error) {
	if b.Version == "" {
		b.Version = version.Get().Version
	}
	if b.Executable == "" {
		own, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find own executable: %w", err)
		}
		b.Executable = own
	}
	k := &Kit{Version: b.Version}
	// The plugin is in the image too, so that a controller, which runs from
	// it, can adopt hosts with the same kit.
	var companions []image.Program
	if k.plugin, k.pluginErr = findPlugin(b, os.Getenv); k.pluginErr == nil {
		if k.pluginErr = k.checkPlugin(b.Executable); k.pluginErr == nil {
			companions = []image.Program{{Name: PluginBinary, Path: k.plugin}}
		}
	}
	var err error
	if k.Image, err = image.New(b.Executable, tagOf(b.Version), companions...); err != nil {
		return nil, err
	}
	return k, nil
}

func (k *Kit) checkPlugin(executable string) error {
	arch, err := image.Architecture(k.plugin)
	if err != nil {
		return fmt.Errorf("use plugin: %w", err)
	}
	own, err := image.Architecture(executable)
	if err != nil {
		return err
	}
	if arch != own {
		return fmt.Errorf("use plugin: %s is for %s, but this docker-clocker for %s: build both alike", k.plugin, arch, own)
	}
	k.pluginSum, err = sum(k.plugin)
	return err
}

// writePlugin writes the plugin as engines want it.
func (k *Kit) writePlugin(w io.Writer) error {
	f, err := os.Open(k.plugin)
	if err != nil {
		return fmt.Errorf("read plugin: %w", err)
	}
	defer func() { _ = f.Close() }() // read only
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("read plugin: %w", err)
	}
	return bundle.Tar(w, f, st.Size(), k.Version)
}

// tagOf makes a version a valid image tag: "1.0+x" has a plus sign.
func tagOf(version string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r) {
			return r
		}
		return '-'
	}, version)
}

func findPlugin(b Build, getenv func(string) string) (string, error) {
	var places []string
	if b.Plugin != "" {
		places = []string{b.Plugin}
	} else {
		if d := getenv(EnvLib); d != "" {
			places = append(places, filepath.Join(d, PluginBinary))
		}
		exe := b.Executable
		if real, err := filepath.EvalSymlinks(exe); err == nil {
			exe = real
		}
		dir := filepath.Dir(exe)
		places = append(places,
			filepath.Join(dir, PluginBinary),
			filepath.Join(dir, "..", "lib", "clocker", PluginBinary),
			filepath.Join("/usr/local/lib/clocker", PluginBinary),
			filepath.Join("/usr/lib/clocker", PluginBinary))
	}
	for _, p := range places {
		st, err := os.Stat(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("find %s: %w", PluginBinary, err)
		}
		if st.Mode().IsRegular() {
			return p, nil
		}
	}
	return "", fmt.Errorf("find %s: it is not at %s: make install puts it there, or set %s to its directory",
		PluginBinary, strings.Join(places, ", "), EnvLib)
}

func sum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read plugin: %w", err)
	}
	defer func() { _ = f.Close() }() // read only
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read plugin: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
