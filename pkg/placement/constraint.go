package placement

import (
	"fmt"
	"strings"
)

// Constraint is one of compose's: KEY == VALUE or KEY != VALUE.
type Constraint struct {
	Key   string
	Not   bool
	Value string
}

// Keys of constraints beside labels, which begin with one of labelPrefixes.
const (
	keyID       = "node.id"
	keyHostname = "node.hostname"
	keyRole     = "node.role"
	keyOS       = "node.platform.os"
	keyArch     = "node.platform.arch"

	nodeLabels   = "node.labels."
	engineLabels = "engine.labels."
)

const constraintKeys = "node.id, node.hostname, node.role, node.platform.os, node.platform.arch, node.labels.NAME and engine.labels.NAME"

// ParseConstraint reads "node.labels.disk == ssd".
func ParseConstraint(text string) (Constraint, error) {
	at := strings.IndexAny(text, "=!")
	if at < 0 || at+1 >= len(text) || text[at+1] != '=' {
		return Constraint{}, fmt.Errorf("constraint %q has neither == nor != (such as node.labels.disk == ssd)", text)
	}
	c := Constraint{Key: strings.TrimSpace(text[:at]), Not: text[at] == '!', Value: strings.TrimSpace(text[at+2:])}
	switch {
	case c.Key == "":
		return Constraint{}, fmt.Errorf("constraint %q has no key before %s", text, text[at:at+2])
	case c.Value == "":
		return Constraint{}, fmt.Errorf("constraint %q has no value after %s", text, text[at:at+2])
	case strings.ContainsAny(c.Value, "=!"):
		return Constraint{}, fmt.Errorf("constraint %q has more than one comparison: write one constraint for each", text)
	case strings.ContainsAny(c.Key, " \t\r\n"):
		return Constraint{}, fmt.Errorf("constraint %q has a key with a space in it", text)
	}
	if l, ok := labelOf(c.Key); ok {
		if l == "" {
			return Constraint{}, fmt.Errorf("constraint %q names no label after %s", text, c.Key)
		}
		return c, nil
	}
	switch c.Key = strings.ToLower(c.Key); c.Key {
	case keyID, keyHostname, keyOS:
	case keyArch:
		c.Value = architecture(c.Value)
	case keyRole:
		if c.Value = strings.ToLower(c.Value); c.Value != RoleManager && c.Value != RoleWorker {
			return Constraint{}, fmt.Errorf("constraint %q: a host is a %s or a %s", text, RoleManager, RoleWorker)
		}
	default:
		return Constraint{}, fmt.Errorf("constraint %q: no such key as %s (there are %s)", text, c.Key, constraintKeys)
	}
	return c, nil
}

// String is the constraint as ParseConstraint reads it.
func (c Constraint) String() string {
	if c.Not {
		return c.Key + " != " + c.Value
	}
	return c.Key + " == " + c.Value
}

// ParsePreference reads what compose's placement preferences spread over, such
// as "node.labels.zone" or "engine.labels.zone"; a bare word is a label too.
func ParsePreference(text string) (string, error) {
	key := strings.TrimSpace(text)
	if l, ok := labelOf(key); ok && l != "" && !strings.ContainsAny(l, " \t\r\n=") {
		return key, nil
	}
	if key == "" || strings.ContainsAny(key, " \t\r\n=") || strings.HasPrefix(key, "node.") || strings.HasPrefix(key, "engine.") {
		return "", fmt.Errorf("preference %q: replicas are spread over labels (such as node.labels.zone)", text)
	}
	return nodeLabels + key, nil
}

// labelOf is the label that a key names.
func labelOf(key string) (string, bool) {
	for _, p := range []string{nodeLabels, engineLabels} {
		if len(key) >= len(p) && strings.EqualFold(key[:len(p)], p) {
			return key[len(p):], true
		}
	}
	return "", false
}

// label is a host's value for a key of labels.
func (h *Host) label(key string) (value string, has bool) {
	name, ok := labelOf(key)
	if !ok {
		name = key
	}
	if !strings.HasPrefix(strings.ToLower(key), "engine.") {
		if v, has := h.Labels[name]; has {
			return v, true
		}
	}
	v, has := h.EngineLabels[name]
	return v, has
}

// meets reports whether a host meets a constraint. As in Swarm, letter case
// does not count, and a host without the label meets !=.
func (c *Constraint) meets(h *Host) bool {
	is := func(value string) bool { return strings.EqualFold(value, c.Value) }
	same := false
	switch c.Key {
	case keyID:
		same = is(h.ID)
	case keyHostname:
		same = is(h.Name) || is(h.Hostname)
	case keyRole:
		same = is(h.role())
	case keyOS:
		os, _, _ := splitPlatform(h.Platform)
		same = is(os)
	case keyArch:
		_, arch, _ := splitPlatform(h.Platform)
		same = is(arch)
	default:
		v, has := h.label(c.Key)
		same = has && is(v)
	}
	return same != c.Not
}

// has says what the host has where a constraint wants something else.
func (c *Constraint) has(h *Host) string {
	value := ""
	switch c.Key {
	case keyID:
		value = h.ID
	case keyHostname:
		value = h.Name
	case keyRole:
		value = h.role()
	case keyOS:
		value, _, _ = splitPlatform(h.Platform)
	case keyArch:
		_, value, _ = splitPlatform(h.Platform)
	default:
		v, has := h.label(c.Key)
		if !has {
			return "it has no such label"
		}
		value = v
	}
	if value == "" {
		return "that is not known of it"
	}
	return "it is " + value
}

// The roles of hosts in constraints.
const (
	RoleManager = "manager" // a controller runs there
	RoleWorker  = "worker"
)

func (h *Host) role() string {
	if h.Role == "" {
		return RoleWorker
	}
	return h.Role
}

// splitPlatform takes "linux/arm/v7" apart.
func splitPlatform(text string) (os, arch, variant string) {
	os, arch, _ = strings.Cut(strings.ToLower(text), "/")
	arch, variant, _ = strings.Cut(arch, "/")
	arch = architecture(arch)
	if arch == "arm64" && variant == "v8" {
		variant = ""
	}
	return os, arch, variant
}

// architecture gives an architecture the name that images have for it.
func architecture(text string) string {
	switch text = strings.ToLower(text); text {
	case "x86_64", "x86-64":
		return "amd64"
	case "aarch64":
		return "arm64"
	case "armhf", "armv7l":
		return "arm"
	case "i386", "i686":
		return "386"
	}
	return text
}

// runs reports whether a host can run what is made for a platform.
func runs(host, want string) bool {
	ho, ha, hv := splitPlatform(host)
	wo, wa, wv := splitPlatform(want)
	return ho == wo && (wa == "" || ha == wa) && (wv == "" || hv == "" || hv >= wv)
}
