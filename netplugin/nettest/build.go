package nettest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Build builds the plugin into a directory and returns what makes commands
// that run it, for tests outside of the plugin's own package.
func Build(dir string) (func(args ...string) *exec.Cmd, error) {
	path := filepath.Join(dir, "clocker-net")
	build := exec.Command("go", "build", "-o", path, "clocker.io/clocker/netplugin")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build plugin: %w\n%s", err, out)
	}
	return func(args ...string) *exec.Cmd { return exec.Command(path, args...) }, nil
}
