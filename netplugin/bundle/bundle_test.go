package bundle

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"path"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

func TestTar(t *testing.T) {
	var b bytes.Buffer
	assert.NilError(t, Tar(&b, strings.NewReader("program"), 7, "1.2.3"))
	dirs, files := map[string]bool{}, map[string]string{}
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		assert.NilError(t, err)
		if h.Typeflag == tar.TypeDir {
			dirs[path.Clean(h.Name)] = true
			continue
		}
		content, err := io.ReadAll(r)
		assert.NilError(t, err)
		files[h.Name] = string(content)
	}
	assert.Equal(t, files["rootfs/clocker-net"], "program")
	var c config
	assert.NilError(t, json.Unmarshal([]byte(files["config.json"]), &c))
	assert.DeepEqual(t, c.Interface.Types, []string{"docker.networkdriver/1.0", "docker.ipamdriver/1.0"})
	assert.DeepEqual(t, c.Linux.Capabilities, []string{"CAP_NET_ADMIN", "CAP_BPF"})
	assert.Equal(t, len(c.Linux.Devices), 1)
	assert.Equal(t, c.Linux.Devices[0].Path, "/dev/net/tun")
	// A read-only root could not hold a mount point that is not there.
	for _, m := range c.Mounts {
		assert.Check(t, dirs["rootfs"+m.Destination], m.Destination)
	}
	assert.Check(t, dirs["rootfs"+PluginsDir])
	assert.Check(t, strings.Contains(c.Description, "1.2.3"))
	for _, name := range HostDirs() {
		found := false
		for _, m := range c.Mounts {
			found = found || m.Source == name
		}
		assert.Check(t, found, "%s is not mounted", name)
	}
}

func TestTarOfABadProgram(t *testing.T) {
	assert.ErrorContains(t, Tar(io.Discard, strings.NewReader("short"), 7, "1"), "pack plugin")
}
