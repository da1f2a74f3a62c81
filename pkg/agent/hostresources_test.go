package agent

import (
	"os"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/model"
)

func TestHostHasWhatIsAsked(t *testing.T) {
	root := t.TempDir()
	assert.NilError(t, os.MkdirAll(filepath.Join(root, "dev"), 0o755))
	assert.NilError(t, os.WriteFile(filepath.Join(root, "dev/there"), nil, 0o600))
	h := hostCheck{root: root}
	assert.NilError(t, h.resources(model.Resources{Paths: []model.DevicePath{{Host: "/dev/there"}}, CPUSet: "0"}))
	err := h.resources(model.Resources{
		Paths: []model.DevicePath{{Host: "/dev/there"}, {Host: "/dev/gone"}}, Limit: model.Amounts{NanoCPUs: 100_000e9}, CPUSet: "0,8000-8001",
	})
	for _, want := range []string{"device /dev/gone: there is no such device", "a limit of 100000 CPUs is more than", "this host has no CPU 8000"} {
		assert.ErrorContains(t, err, want)
	}
	assert.NilError(t, hostCheck{}.resources(model.Resources{Paths: []model.DevicePath{{Host: "/dev/gone"}}}))
	assert.NilError(t, processors(model.Resources{CPUSet: "1-2", Limit: model.Amounts{NanoCPUs: 3e9}}, []int{0, 1, 2}))
	assert.DeepEqual(t, parseCPUs("0-2,4\n"), []int{0, 1, 2, 4})
	assert.Equal(t, len(parseCPUs("x,1-,-2")), 0)
}
