package strategy

import (
	"errors"
	"fmt"
	"strings"

	"clocker.io/clocker/pkg/model"
)

// Parse reads a strategy on one line, as command lines have it: NAME,
// NAME=VALUE where the strategy has a main option, or NAME=KEY=VALUE,... where
// it has several; "soft:" before it makes it a wish.
//
//	max-containers=20
//	soft:label=ssd,zone=a
//	group=exclusive=true,timeout=5m
func Parse(text string) (model.Strategy, error) {
	rest, wish := strings.CutPrefix(text, "soft:")
	word, value, has := strings.Cut(rest, "=")
	name, remedy, ok := Name(strings.TrimSpace(word))
	if !ok {
		return model.Strategy{}, fmt.Errorf("unknown strategy %q (%s)", word, remedy)
	}
	o := Options{}
	if wish {
		o["soft"] = []string{"true"}
	}
	switch key := Main(name); {
	case !has:
	case key == "hostname": // a regular expression may hold commas
		o[key] = []string{value}
	case key != "":
		o[key] = strings.Split(value, ",")
	default:
		for _, pair := range strings.Split(value, ",") {
			k, v, found := strings.Cut(pair, "=")
			if !found {
				v = "true"
			}
			o[strings.TrimSpace(k)] = []string{v}
		}
	}
	s, problems := New(name, o)
	var errs []error
	for _, p := range problems {
		if p.Remedy != "" {
			p.Text += " (" + p.Remedy + ")"
		}
		errs = append(errs, errors.New(p.Text))
	}
	return s, errors.Join(errs...)
}

// String is a strategy as [Parse] reads it.
func String(s model.Strategy) string {
	var options []string
	add := func(format string, args ...any) { options = append(options, fmt.Sprintf(format, args...)) }
	switch s.Name {
	case MaxContainers, MaxPerHost:
		add("%d", s.Containers)
	case MaxCPU:
		add("%g", s.CPU)
	case Hostname:
		add("%s", s.Hostname)
	case Label, ZoneSpread:
		options = s.Labels
	case Affinity:
		options = s.Rules
	case Group:
		if s.Exclusive {
			add("exclusive=true")
		}
		if s.Timeout != 0 && s.Timeout != DefaultTimeout {
			add("timeout=%s", s.Timeout)
		}
	case ProvisioningFlags:
		if s.Cores != 0 {
			add("minCores=%g", s.Cores)
		}
		if s.MemoryBytes != 0 {
			add("memory=%d", s.MemoryBytes)
		}
	}
	text := s.Name
	if len(options) > 0 {
		text += "=" + strings.Join(options, ",")
	}
	if s.Soft {
		text = "soft:" + text
	}
	return text
}
