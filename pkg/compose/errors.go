package compose

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"clocker.io/clocker/pkg/source/document"
)

// finding is what one error of the loader says.
type finding struct {
	// path is the place in the loader's notation; empty when it gives none.
	path, text, remedy string
}

const sections = `(?:services|networks|volumes|secrets|configs|include|name|version)`

var (
	schemaError  = regexp.MustCompile(`^(?:validating .*?: )?(` + sections + `(?:\.[^\s:]+)?):? (.*)$`)
	interpolated = regexp.MustCompile(`^error while interpolating (\S+): (.*)$`)
	badTemplate  = regexp.MustCompile(`(?s)^invalid interpolation format for (\S+)\.\n.*\n(.*)$`)
	decoded      = regexp.MustCompile(`^'(` + sections + `[^']*)' (.*)$`)
	extending    = regexp.MustCompile(`^cannot extend service "([^"]*)" in .*: (service ".*?" not found.*|no services section|services must be a mapping)$`)
	extendsKey   = regexp.MustCompile(`^extends\.(\S+)\.service is required$`)
	named        = regexp.MustCompile(`^(.*?)(` + sections + `\.[^\s:]+)(.*)$`)
	bracket      = regexp.MustCompile(`\[([^\]]*)\]`)
	noNumber     = regexp.MustCompile(`^(?:failed to cast to expected type: )?strconv\.\w+: parsing (".*"): .*$`)
	noBoolean    = regexp.MustCompile(`^(?:failed to cast to expected type: )?invalid boolean: (.*)$`)
	noDuration   = regexp.MustCompile(`^time: (?:invalid|missing unit in|unknown unit .* in) duration (".*")$`)
	overflow     = regexp.MustCompile(`^cannot parse value as '\w+': (\S+) overflows \w+$`)
	sequence     = regexp.MustCompile(`\.?\[(\d*)\]`)
)

// findings takes the loader's error apart.
func findings(err error) []finding {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var out []finding
		for _, e := range many.Unwrap() {
			out = append(out, findings(e)...)
		}
		return out
	}
	text := strings.TrimSpace(err.Error())
	if m := badTemplate.FindStringSubmatch(text); m != nil {
		return []finding{{m[1], "invalid variable in " + strconv.Quote(m[2]), "write $$ for a dollar sign"}}
	}
	if list, ok := strings.CutPrefix(text, "decoding failed due to the following error(s):"); ok {
		var out []finding
		for _, line := range strings.Split(list, "\n") {
			if line = strings.TrimSpace(line); line != "" {
				out = append(out, oneFinding(line))
			}
		}
		return out
	}
	return []finding{oneFinding(strings.Join(strings.Fields(text), " "))}
}

func oneFinding(text string) finding {
	path := ""
	for _, shape := range []*regexp.Regexp{interpolated, schemaError} {
		if m := shape.FindStringSubmatch(text); m != nil {
			path, text = m[1], m[2]
			break
		}
	}
	if m := decoded.FindStringSubmatch(text); m != nil && path == "" {
		path, text = bracket.ReplaceAllString(m[1], ".$1"), m[2]
	}
	if m := extending.FindStringSubmatch(text); m != nil && path == "" {
		path, text = "services."+m[1]+".extends", "cannot extend: "+m[2]
	}
	if m := extendsKey.FindStringSubmatch(text); m != nil && path == "" {
		path, text = "services."+m[1]+".extends", "service is missing"
	}
	if strings.HasPrefix(text, "`include` must be a list") {
		path, text = "include", "must be a list"
	}
	if m := named.FindStringSubmatch(text); m != nil && path == "" {
		path, text = m[2], strings.TrimSpace(strings.TrimSpace(m[1])+m[3])
	}
	f := finding{path: path, text: words(text), remedy: remedyFor(path, text)}
	for shape, say := range map[*regexp.Regexp]string{
		noNumber: "%s is no number", noBoolean: "%q is neither true nor false", noDuration: "%s is no duration", overflow: "%s is out of range",
	} {
		if m := shape.FindStringSubmatch(text); m != nil {
			f.text = fmt.Sprintf(say, m[1])
		}
	}
	return f
}

// remedyFor says what to do where the loader only says what is wrong.
func remedyFor(path, text string) string {
	switch last := path[strings.LastIndexByte(path, '.')+1:]; {
	case strings.Contains(text, "required variable"):
		return "set it in the environment or in .env"
	case last == "interval" || last == "timeout" || last == "start_period" || last == "start_interval" || last == "stop_grace_period":
		return "such as 30s or 1m30s"
	case last == "command" || last == "entrypoint":
		return `a text, such as "sh -c 'echo hi'", or a list of texts`
	case strings.HasSuffix(text, "must be a mapping") && strings.HasPrefix(path, "services.") && strings.Count(path, ".") == 1:
		return "such as {image: redis:7}"
	}
	return ""
}

// words puts the terms of JSON schema into those of YAML.
func words(s string) string {
	return strings.NewReplacer(
		"must be a null", "must be something else", "invalid command line string", "a quote is not closed", "must be a mapping", "must be a map", "must be a array", "must be a list", "must be a string", "must be a text",
		"must be a integer", "must be a whole number", "must be a boolean", "must be true or false", "must be a object", "must be a map",
		"array", "list", "object", "map", "mapping", "map", "string", "text", "integer", "whole number", "boolean", "true or false",
		"additional properties", "unknown key", "not allowed", "is not allowed",
	).Replace(s)
}

// prune takes the place that the loader refused out of the files, and returns
// its path as the user knows it.
func (l *load) prune(path string) (at string, pruned bool) {
	if path == "" {
		return "", false
	}
	path = strings.TrimPrefix(sequence.ReplaceAllString(path, ".$1"), ".")
	for _, s := range l.sources {
		for _, d := range s.docs {
			p := &pruner{load: l}
			if p.from(document.Resolve(d.Root), path, "") {
				s.changed = true
				pruned = true
			}
			if p.at != "" {
				at = p.at
			}
		}
	}
	return at, pruned
}

type pruner struct {
	*load
	at    string
	depth int
}

// from removes what stands at the path below a node. Names may hold dots, so
// every key that fits is tried.
func (p *pruner) from(n *yaml.Node, rest, at string) bool {
	if p.depth++; n == nil || p.depth > maxDepth {
		return false
	}
	defer func() { p.depth-- }()
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, v := n.Content[i].Value, document.Resolve(n.Content[i+1])
			next := document.Join(at, key)
			if key == rest {
				p.at = next
				n.Content = append(n.Content[:i:i], n.Content[i+2:]...)
				return true
			}
			if below, ok := strings.CutPrefix(rest, key+"."); ok && p.from(v, below, next) {
				return true
			}
			if key == "<<" && (p.from(v, rest, at) || v != nil && v.Kind == yaml.SequenceNode && p.merged(v, rest, at)) {
				return true
			}
		}
	case yaml.SequenceNode:
		number, below, deeper := strings.Cut(rest, ".")
		for i, c := range n.Content {
			v, next := document.Resolve(c), document.Index(at, p.number(n, i))
			switch {
			case number != "" && number != strconv.Itoa(i):
				continue
			case deeper:
				if p.from(v, below, next) {
					return true
				}
			case number == "" && !p.broken(v): // "[]" names no item
				continue
			default:
				p.at = next
				p.removeItem(n, i)
				return true
			}
		}
		// The item that the loader means is not one of the text's own, such
		// as the second half of a range of ports.
		p.at = at
	}
	return false
}

func (p *pruner) merged(list *yaml.Node, rest, at string) bool {
	for _, m := range list.Content {
		if p.from(document.Resolve(m), rest, at) {
			return true
		}
	}
	return false
}

// broken reports whether the variables of a text cannot be replaced.
func (p *pruner) broken(n *yaml.Node) bool {
	if n == nil || n.Kind != yaml.ScalarNode {
		return false
	}
	_, err := p.substitute(n.Value)
	return err != nil
}
