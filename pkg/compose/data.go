package compose

import (
	"fmt"
	"time"

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

// hostLost reads what x-clocker of a service says about lost hosts.
func (l *load) hostLost(x map[string]any, path string, out *model.Service) {
	then, fence := x["on-host-lost"], x["fence"]
	if then == nil && fence == nil {
		return
	}
	out.HostLost.Position = l.at(path + ".on-host-lost")
	if then != nil {
		text, ok := then.(string)
		if !ok {
			l.refuse(path+".on-host-lost", model.LostWait+" or "+model.LostReplace, "expected a word")
		}
		out.HostLost.Then = text
	}
	if fence != nil {
		d, err := time.ParseDuration(fmt.Sprint(fence))
		if err != nil || d <= 0 {
			l.refuse(path+".fence", "such as 15s", "%q is no duration", fmt.Sprint(fence))
			return
		}
		out.HostLost.Fence = d
	}
}

// staysBehind warns of data that a service is replaced without.
func (l *load) staysBehind(path string, out *model.Service) {
	if stays := out.Stays(); stays != "" {
		l.warn(fmt.Sprintf("%s: when its host is lost the service starts elsewhere without its data: %s is of each host and stays behind",
			l.at(path+".on-host-lost"), stays))
	}
}

// shared reads x-clocker of a mount; the walker has refused what is no bool.
func shared(v types.ServiceVolumeConfig) bool {
	x, _ := v.Extensions["x-clocker"].(map[string]any)
	on, _ := x["shared"].(bool)
	return on
}
