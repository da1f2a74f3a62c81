package compose

import (
	"fmt"

	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/source/document"
)

// mountExtensions are the keys of x-clocker under an item of a service's
// volumes.
var mountExtensions = []string{"shared"}

// mountKey looks at one key of x-clocker under a mount.
func (w *walker) mountKey(k, v *yaml.Node, at string) {
	v = document.Resolve(v)
	w.index[at] = w.doc.At(k)
	switch {
	case k.Value != "shared":
		w.problem(k, at, model.DidYouMean(k.Value, mountExtensions, "the keys here are "+list(mountExtensions)), "unknown key %q", k.Value)
	case v.ShortTag() != "!!bool":
		w.problem(v, at, "true where the path is the same data on every host, as with a network file system; else leave it out", "expected true or false, found %s", shown(v))
	}
}

func shown(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode {
		return fmt.Sprintf("%q", n.Value)
	}
	return document.KindName(n)
}

// shared reads x-clocker of a mount; the walker has refused what is no bool.
func shared(v types.ServiceVolumeConfig) bool {
	x, _ := v.Extensions["x-clocker"].(map[string]any)
	on, _ := x["shared"].(bool)
	return on
}
