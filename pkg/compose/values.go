package compose

import (
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/format"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/go-units"
	"go.yaml.in/yaml/v4"

	"clocker.io/clocker/pkg/source/document"
)

// text is a scalar with its variables replaced; false when it is none, or
// when the loader will say what is wrong with it.
func (w *walker) text(n *yaml.Node) (string, bool) {
	n = document.Resolve(n)
	if n == nil || n.Kind != yaml.ScalarNode || document.Null(n) {
		return "", false
	}
	s, err := w.substitute(n.Value)
	return s, err == nil
}

// valueOK looks at values that the loader accepts but the fleet cannot carry
// out. False takes the key out of what the loader sees.
func (w *walker) valueOK(v *yaml.Node, pattern, at string) bool {
	text, isText := w.text(v)
	switch pattern {
	case "include":
		return w.include(v, at)
	case "services.*.extends":
		return w.extends(v, at)
	case "services.*.env_file":
		if w.source.file.Remote && !document.Null(v) {
			w.problem(v, at, "write the variables under environment:", "a file from another machine cannot name files of this one")
			return false
		}
	case "services.*.deploy.mode":
		if remedy, no := otherModes[text]; isText && no {
			w.problem(v, at, remedy, "mode %q is not supported yet", text)
			return false
		}
	case "services.*.deploy.update_config.failure_action":
		if isText && text != "rollback" {
			w.problem(v, at, "leave it out: a deploy that fails is taken back as a whole, as rollback says", "failure action %q is not supported yet", text)
			return false
		}
	case "services.*.cpus", "services.*.deploy.resources.limits.cpus", "services.*.deploy.resources.reservations.cpus":
		if f, err := strconv.ParseFloat(text, 64); isText && (err != nil || !(f >= 0 && f < 1<<20)) {
			w.problem(v, at, "such as 0.5", "%q is no number of CPUs", text)
			return false
		}
	case "services.*.mem_limit", "services.*.mem_reservation", "services.*.memswap_limit",
		"services.*.deploy.resources.limits.memory", "services.*.deploy.resources.reservations.memory":
		if isText && !w.memoryOK(v, text, pattern, at) {
			return false
		}
	case "networks.*.driver":
		if isText && slices.Contains(hostOnly, text) {
			w.problem(v, at, "leave it out, or write driver: clocker", "network driver %q cannot carry a network of the fleet", text)
			return false
		}
	case "networks.*.ipam.config":
		if n := document.Resolve(v); n != nil && n.Kind == yaml.SequenceNode && len(n.Content) > 2 {
			w.problem(n.Content[2], at, "keep one subnet of each family", "a network has one subnet of IPv4 and one of IPv6, found %d", len(n.Content))
			return false
		}
	}
	return true
}

// otherModes are the modes of a service that it cannot have, with what to do.
var otherModes = map[string]string{
	"global":         "write replicas: as many as there are hosts, and placement: {max_replicas_per_node: 1}",
	"replicated-job": `write restart: "no" for the service`,
	"global-job":     `write restart: "no" for the service, replicas: and placement: {max_replicas_per_node: 1}`,
}

// memoryOK looks at an amount of memory; the loader would take some for zero.
func (w *walker) memoryOK(v *yaml.Node, text, pattern, at string) bool {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		if n >= 0 || n == -1 && pattern == "services.*.memswap_limit" {
			return true
		}
	} else if n, err := units.RAMInBytes(text); err == nil && n >= 0 && document.Resolve(v).ShortTag() != "!!float" {
		return true
	}
	w.problem(v, at, "such as 512M or 2g", "%q is no amount of memory", text)
	return false
}

// itemOK looks at one item of a list. False takes it out of what the loader
// sees.
func (w *walker) itemOK(n *yaml.Node, pattern, at string) bool {
	switch pattern {
	case "services.*.ports":
		return w.portOK(n, at)
	case "services.*.volumes":
		return w.volumeOK(n, at)
	case "services.*.gpus":
		return w.deviceOK(n, at, false)
	case "services.*.deploy.resources.reservations.devices":
		return w.deviceOK(n, at, true)
	}
	return true
}

// deviceOK looks at what the loader says of a request for devices without
// saying where.
func (w *walker) deviceOK(n *yaml.Node, at string, capable bool) bool {
	switch {
	case n.Kind != yaml.MappingNode:
	case document.Get(n, "count") != nil && document.Get(n, "device_ids") != nil:
		w.problem(document.Get(n, "count"), at+".count", "keep one of them", "a number of devices and their ids exclude each other")
		return false
	case capable && document.Get(n, "capabilities") == nil:
		w.problem(n, at, "such as capabilities: [gpu]", "the request does not say what the device must be able to do")
		return false
	}
	return true
}

// namedIngress is the mode that a port is given which names "ingress" itself:
// the loader gives "ingress" to all that name none.
const namedIngress = "ingress on every host"

// ingressOK looks at the mode of a port in its long form.
func (w *walker) ingressOK(n *yaml.Node, at string) bool {
	mode, ok := w.text(n)
	switch {
	case !ok || mode != "ingress":
	case !w.prune: // what is changed here does not reach the loader
		w.problem(n, at+".mode", "write the ports in the file that includes or extends this one",
			"a port on every host (mode: ingress) cannot be named in a file that another one includes or extends")
		return false
	default:
		n.Value = namedIngress
		w.source.changed = true
	}
	return true
}

func (w *walker) portOK(n *yaml.Node, at string) bool {
	if n.Kind == yaml.MappingNode {
		ip, ok := w.text(document.Get(n, "host_ip"))
		if _, err := netip.ParseAddr(ip); ok && err != nil {
			w.problem(document.Get(n, "host_ip"), at+".host_ip", "such as 127.0.0.1", "%q is no address", ip)
			return false
		}
		// The rest is checked once it is loaded.
		return w.ingressOK(document.Get(n, "mode"), at)
	}
	s, ok := w.text(n)
	if !ok {
		return true
	}
	if strings.Trim(s, " ") != s || s == "" {
		w.problem(n, at, "HOST:CONTAINER, such as 8080:80", "%q is no port", s)
		return false
	}
	if _, err := types.ParsePortConfig(s); err != nil {
		w.problem(n, at, "HOST:CONTAINER, such as 8080:80, 127.0.0.1:8080:80 or 53:53/udp", "%q is no port: %s", s, lowerFirst(err.Error()))
		return false
	}
	return true
}

func (w *walker) volumeOK(n *yaml.Node, at string) bool {
	if n.Kind == yaml.MappingNode {
		if target, ok := w.text(document.Get(n, "target")); ok && !w.targetOK(document.Get(n, "target"), target, at+".target") {
			return false
		}
		t, ok := w.text(document.Get(n, "type"))
		if ok && t != "" && t != "bind" {
			w.problem(document.Get(n, "type"), at+".type", "bind a path of the host: type: bind", "mounts of type %q are not supported yet", t)
			return false
		}
		if source, ok := w.text(document.Get(n, "source")); ok && source != "" {
			return w.sourceOK(document.Get(n, "source"), source, at+".source")
		}
		return true
	}
	s, ok := w.text(n)
	if !ok {
		return true
	}
	v, err := format.ParseVolume(s)
	switch {
	case err != nil:
		w.problem(n, at, "HOST_PATH:CONTAINER_PATH, such as /var/lib/data:/data:ro", "%q is no volume: %s", s, err)
	case v.Type != types.VolumeTypeBind && v.Source == "":
		w.problem(n, at, "bind a path of the host, as in /var/lib/data:"+v.Target, "anonymous volume %q: volumes are not supported yet", s)
	case v.Type != types.VolumeTypeBind:
		w.problem(n, at, "bind a path of the host, as in /var/lib/"+v.Source+":"+v.Target, "volume %q is not supported yet", v.Source)
	default:
		return w.targetOK(n, v.Target, at) && w.optionsOK(n, s, at) && w.sourceOK(n, v.Source, at)
	}
	return false
}

// targetOK refuses a second mount on one path of a list, of which the loader
// would keep the last.
func (w *walker) targetOK(n *yaml.Node, target, at string) bool {
	target = path.Clean(target)
	if w.targets[target] {
		w.problem(n, at, "remove one of them", "two mounts have the target %q", target)
		return false
	}
	w.targets[target] = true
	return true
}

// optionsOK looks at the part after the second colon, of which the loader
// drops what it does not know.
func (w *walker) optionsOK(n *yaml.Node, volume, at string) bool {
	parts := strings.Split(volume, ":")
	if len(parts) < 3 {
		return true
	}
	for _, o := range strings.Split(parts[len(parts)-1], ",") {
		if o != "ro" && o != "rw" {
			w.problem(n, at, "ro or rw", "option %q of volume %q is not supported yet", o, volume)
			return false
		}
	}
	return true
}

func (w *walker) sourceOK(n *yaml.Node, source, at string) bool {
	if path.IsAbs(source) {
		return true
	}
	w.problem(n, at, "write an absolute path, which must exist on the host that runs the container",
		"bind source %q is relative to this machine, and the container runs on another", source)
	return false
}

func lowerFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}
