package plan

import (
	"fmt"
	"sort"
	"strconv"
	"strings"

	"clocker.io/clocker/pkg/model"
)

// LinkTarget is a link's far end when it is up.
type LinkTarget struct {
	Entity *model.Entity
	// Address is the target's address in a network that both share.
	Address string
}

// LinkVariables returns the variables of Docker's legacy links for one link
// (spec/clocker.md §1.3.3), as "NAME=value" in a fixed order. source is the
// linking container's name. Where the target has several ports, <A>_PORT is
// the lowest, as Docker did it.
func LinkVariables(source string, l model.Link, t LinkTarget) []string {
	a := variableName(l.Alias)
	out := []string{fmt.Sprintf("%s_NAME=/%s/%s", a, source, l.Alias)}
	ports := append([]model.Port(nil), t.Entity.Service.Ports...)
	sort.Slice(ports, func(i, j int) bool {
		if ports[i].ContainerPort != ports[j].ContainerPort {
			return ports[i].ContainerPort < ports[j].ContainerPort
		}
		return ports[i].Protocol < ports[j].Protocol
	})
	for i, p := range ports {
		if i > 0 && p.ContainerPort == ports[i-1].ContainerPort && p.Protocol == ports[i-1].Protocol {
			continue
		}
		n := strconv.Itoa(int(p.ContainerPort))
		url := p.Protocol + "://" + t.Address + ":" + n
		if i == 0 {
			out = append(out, a+"_PORT="+url)
		}
		key := a + "_PORT_" + n + "_" + strings.ToUpper(p.Protocol)
		out = append(out, key+"="+url, key+"_ADDR="+t.Address, key+"_PORT="+n, key+"_PROTO="+p.Protocol)
	}
	for _, v := range t.Entity.Service.Env {
		if text, ok := v.Value.Literal(); ok {
			out = append(out, a+"_ENV_"+v.Name+"="+text)
		}
	}
	return out
}

// mergeEnv adds link variables to explicit ones; an explicit one wins.
func mergeEnv(explicit, links []string) []string {
	have := make(map[string]bool, len(explicit))
	for _, v := range explicit {
		name, _, _ := strings.Cut(v, "=")
		have[name] = true
	}
	out := append([]string(nil), explicit...)
	for _, v := range links {
		name, _, _ := strings.Cut(v, "=")
		if !have[name] {
			have[name] = true
			out = append(out, v)
		}
	}
	return out
}

// variableName upper-cases an alias and puts _ for whatever a shell would not
// take in a name.
func variableName(alias string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_':
			return r
		}
		return '_'
	}, alias)
}
