package nettest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Main builds the plugin, says by plugin what makes commands that run it, and
// runs the tests of a package that is not the plugin's own. It returns the
// process's exit code.
func Main(m *testing.M, plugin *func(args ...string) *exec.Cmd) int {
	dir, err := os.MkdirTemp("", "clocker-net-")
	if err == nil {
		defer os.RemoveAll(dir)
		*plugin, err = build(dir)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return m.Run()
}

// build builds the plugin into a directory and returns what makes commands
// that run it.
func build(dir string) (func(args ...string) *exec.Cmd, error) {
	path := filepath.Join(dir, "clocker-net")
	build := exec.Command("go", "build", "-o", path, "clocker.io/clocker/netplugin")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build plugin: %w\n%s", err, out)
	}
	return func(args ...string) *exec.Cmd { return exec.Command(path, args...) }, nil
}
