package fleet

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"clocker.io/clocker/pkg/engine/connect"
)

// Listed is a machine as a list of hosts names it.
type Listed struct {
	Endpoint string
	// Name, Address and Labels are as in [AddOptions].
	Name, Address string
	Labels        map[string]string
	// HostKey is the SSH host key in the form of authorized_keys; empty
	// leaves it to known_hosts.
	HostKey string
	// At is where it stands: "hosts.yaml:3".
	At string
}

// maxList bounds a list of hosts: 10,000 of them are a megabyte or two.
const maxList = 16 << 20

// ReadList reads a list of hosts: YAML, a list of endpoints or of mappings with
// endpoint, name, address, labels and hostKey, itself or under the key
// "hosts"; or lines of "ENDPOINT [NAME]" with # comments. The error joins
// everything that is wrong, each with its line; file is what it is called.
func ReadList(r io.Reader, file string) ([]Listed, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxList))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	l := &listReader{file: file, names: map[string]string{}, endpoints: map[string]string{}}
	var doc yaml.Node
	err = yaml.Unmarshal(text, &doc)
	if err == nil && len(doc.Content) == 1 && doc.Content[0].Kind != yaml.ScalarNode {
		l.document(doc.Content[0])
	} else {
		l.plain(string(text), err)
	}
	if len(l.errs) == 0 && len(l.out) == 0 {
		l.bad(1, "it lists no host")
	}
	if len(l.errs) > 0 {
		return nil, errors.Join(l.errs...)
	}
	return l.out, nil
}

type listReader struct {
	file string
	out  []Listed
	errs []error
	// names and endpoints are those seen, with where.
	names, endpoints map[string]string
}

func (l *listReader) bad(line int, format string, args ...any) {
	l.errs = append(l.errs, fmt.Errorf("%s:%d: %s", l.file, line, fmt.Sprintf(format, args...)))
}

// plain reads lines; notYAML is why the text is no YAML list.
func (l *listReader) plain(text string, notYAML error) {
	n := 0
	for line := range strings.Lines(text) {
		n++
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		switch {
		case len(f) == 0:
		case len(f) > 2 || !isEndpoint(f[0]):
			if notYAML != nil {
				l.errs = append(l.errs, fmt.Errorf("%s: neither YAML (%w) nor lines of ENDPOINT [NAME]: see line %d", l.file, notYAML, n))
				return
			}
			l.bad(n, "%q is not ENDPOINT [NAME]: ssh://[USER@]HOST[:PORT], tcp://HOST:PORT or context:NAME", strings.TrimSpace(line))
		default:
			l.add(n, Listed{Endpoint: f[0], Name: strings.Join(f[1:], "")})
		}
	}
}

func isEndpoint(s string) bool {
	return strings.Contains(s, "://") || strings.HasPrefix(s, connect.ContextPrefix)
}

// IsList reports whether an argument of host add names a file, not an
// endpoint.
func IsList(argument string) bool { return !isEndpoint(argument) }

func (l *listReader) document(n *yaml.Node) {
	if n.Kind == yaml.MappingNode {
		var hosts *yaml.Node
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == "hosts" {
				hosts = n.Content[i+1]
				continue
			}
			l.bad(n.Content[i].Line, "unknown key %q: hosts is the only one", n.Content[i].Value)
		}
		if hosts == nil {
			l.bad(n.Line, "no key hosts with a list of hosts")
			return
		}
		n = hosts
	}
	if n.Kind != yaml.SequenceNode {
		l.bad(n.Line, "a list of hosts is wanted")
		return
	}
	for _, e := range n.Content {
		switch e.Kind {
		case yaml.ScalarNode:
			l.add(e.Line, Listed{Endpoint: e.Value})
		case yaml.MappingNode:
			l.entry(e)
		default:
			l.bad(e.Line, "a host is an endpoint, or a mapping with the key endpoint")
		}
	}
}

func (l *listReader) entry(n *yaml.Node) {
	h := Listed{}
	before := len(l.errs)
	texts := map[string]*string{"endpoint": &h.Endpoint, "name": &h.Name, "address": &h.Address, "hostKey": &h.HostKey}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		text, ok := texts[k.Value]
		switch {
		case ok && v.Kind == yaml.ScalarNode:
			*text = v.Value
		case ok:
			l.bad(v.Line, "%s is not a text", k.Value)
		case k.Value == "labels":
			h.Labels = l.labels(v)
		default:
			l.bad(k.Line, "unknown key %q: there are %s and labels", k.Value, strings.Join(slices.Sorted(maps.Keys(texts)), ", "))
		}
	}
	if h.Endpoint == "" && len(l.errs) == before {
		l.bad(n.Line, "a host has no endpoint")
	}
	if len(l.errs) == before {
		l.add(n.Line, h)
	}
}

// labels are a mapping, or a list of KEY=VALUE.
func (l *listReader) labels(n *yaml.Node) map[string]string {
	out := map[string]string{}
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i+1].Kind != yaml.ScalarNode {
				l.bad(n.Content[i].Line, "label %s is not a text", n.Content[i].Value)
				continue
			}
			out[n.Content[i].Value] = n.Content[i+1].Value
		}
	case yaml.SequenceNode:
		for _, e := range n.Content {
			k, v, _ := strings.Cut(e.Value, "=")
			if e.Kind != yaml.ScalarNode || k == "" {
				l.bad(e.Line, "a label is KEY=VALUE")
				continue
			}
			out[k] = v
		}
	default:
		l.bad(n.Line, "labels are a mapping, or a list of KEY=VALUE")
	}
	return out
}

// add takes a host in after a look at its parts.
func (l *listReader) add(line int, h Listed) {
	before := len(l.errs)
	h.At = fmt.Sprintf("%s:%d", l.file, line)
	if !isEndpoint(h.Endpoint) {
		l.bad(line, "%q is not an endpoint: ssh://[USER@]HOST[:PORT], tcp://HOST:PORT or context:NAME", h.Endpoint)
	}
	if h.Name != "" {
		if err := CheckName("host", h.Name); err != nil {
			l.bad(line, "%s", err)
		}
		if at, ok := l.names[h.Name]; ok {
			l.bad(line, "the name %s stands at %s already", h.Name, at)
		}
		l.names[h.Name] = h.At
	}
	if h.Address != "" {
		if _, err := netip.ParseAddr(h.Address); err != nil {
			l.bad(line, "%q is not an address", h.Address)
		}
	}
	if at, ok := l.endpoints[h.Endpoint]; ok {
		l.bad(line, "%s stands at %s already", h.Endpoint, at)
	}
	l.endpoints[h.Endpoint] = h.At
	if len(l.errs) == before {
		l.out = append(l.out, h)
	}
}
