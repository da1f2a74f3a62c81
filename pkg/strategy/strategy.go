package strategy

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"clocker.io/clocker/pkg/model"
)

// Defaults of the old Clocker (spec/clocker.md §2.2), for options that a file
// leaves out.
const (
	DefaultContainers = 8
	DefaultCPU        = 0.5
	DefaultTimeout    = 20 * time.Minute
	DefaultZone       = "zone"
)

// Options are what a file says beside the name: texts by key. An option of one
// value is a list of one.
type Options map[string][]string

// Problem is what is wrong with one option; an empty Option stands for the
// strategy as a whole.
type Problem struct{ Option, Text, Remedy string }

// option reads one value into a strategy.
type option func(s *model.Strategy, values []string) (text, remedy string)

// options are what each strategy takes, by every spelling. The first word of
// main is the key that a value without one is for.
var options = map[string]map[string]option{
	DepthFirst: {}, BreadthFirst: {}, Random: {}, LeastContainers: {}, LowestCPU: {}, Spread: {}, Binpack: {},
	MaxContainers: {
		"containers": containers, "maxContainers": containers, "docker.container.cluster.maxSize": containers,
	},
	MaxPerHost: {"containers": containers, "replicas": containers},
	MaxCPU:     {"cpu": cpu, "maxCpu": cpu, "docker.container.cluster.maxCpu": cpu},
	Hostname:   {"hostname": hostname, "docker.constraint.hostname": hostname},
	Label:      {"labels": labels, "docker.constraint.labels": labels},
	ZoneSpread: {"label": oneLabel},
	Group: {
		"exclusive": exclusive, "docker.constraint.exclusive": exclusive,
		"timeout": timeout, "docker.strategy.timeout": timeout,
	},
	ProvisioningFlags: {"minCores": cores, "cores": cores, "minRam": ram, "memory": memory},
	Affinity:          {"rules": rules, "affinity.rules": rules, "affinityRules": rules},
}

// main is the option that a value without a key is for.
var main = map[string]string{
	MaxContainers: "containers", MaxPerHost: "containers", MaxCPU: "cpu", Hostname: "hostname", Label: "labels",
	ZoneSpread: "label", Affinity: "rules",
}

// Main is the option that a value without a key is for, such as "containers"
// of max-containers; "" where there is none.
func Main(name string) string { return main[name] }

// New makes the strategy of a short name. The problems are in the order of the
// options' names.
func New(name string, o Options) (model.Strategy, []Problem) {
	s := model.Strategy{Name: name}
	var problems []Problem
	for _, key := range slices.Sorted(maps.Keys(o)) {
		read := options[name][key]
		if key == "soft" {
			read = soft
		}
		if read == nil {
			known := append(slices.Sorted(maps.Keys(options[name])), "soft")
			problems = append(problems, Problem{key, fmt.Sprintf("strategy %s has no option %q", name, key),
				model.DidYouMean(key, known, "its options are "+strings.Join(known, ", "))})
			continue
		}
		if text, remedy := read(&s, o[key]); text != "" {
			problems = append(problems, Problem{key, text, remedy})
		}
	}
	if len(problems) == 0 {
		problems = append(problems, fill(&s)...)
	}
	return s, problems
}

// fill gives a strategy its defaults, and says what it cannot be without.
func fill(s *model.Strategy) []Problem {
	missing := func(remedy, format string, args ...any) []Problem {
		return []Problem{{"", fmt.Sprintf(format, args...), remedy}}
	}
	switch s.Name {
	case MaxContainers:
		if s.Containers == 0 {
			s.Containers = DefaultContainers
		}
	case MaxPerHost:
		if s.Containers == 0 {
			return missing("such as max-replicas-per-host: 2", "strategy %s lacks a number of replicas", s.Name)
		}
	case MaxCPU:
		if s.CPU == 0 {
			s.CPU = DefaultCPU
		}
	case Group:
		if s.Timeout == 0 {
			s.Timeout = DefaultTimeout
		}
	case Hostname:
		if s.Hostname == "" {
			return missing(`such as hostname: "web-.*"`, "strategy %s lacks a regular expression", s.Name)
		}
	case ZoneSpread:
		if len(s.Labels) == 0 {
			s.Labels = []string{DefaultZone}
		}
	case Affinity:
		if len(s.Rules) == 0 {
			return missing("such as affinity: [NOT TYPE]", "strategy %s lacks rules", s.Name)
		}
	}
	return nil
}

// one is the only value of an option.
func one(values []string) (string, bool) {
	if len(values) != 1 {
		return "", false
	}
	return strings.TrimSpace(values[0]), true
}

func soft(s *model.Strategy, values []string) (string, string) {
	return boolean(&s.Soft, values)
}

func exclusive(s *model.Strategy, values []string) (string, string) {
	return boolean(&s.Exclusive, values)
}

func boolean(to *bool, values []string) (string, string) {
	v, _ := one(values)
	on, err := strconv.ParseBool(v)
	if err != nil {
		return fmt.Sprintf("%q is neither true nor false", strings.Join(values, ", ")), "true or false"
	}
	*to = on
	return "", ""
}

func containers(s *model.Strategy, values []string) (string, string) {
	v, _ := one(values)
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		return fmt.Sprintf("%q is no number of containers", strings.Join(values, ", ")), "1 or more"
	}
	s.Containers = n
	return "", ""
}

func cpu(s *model.Strategy, values []string) (string, string) {
	v, _ := one(values)
	share, err := Share(v)
	if err != nil {
		return err.Error(), "more than 0 and at most 1, or a percentage, such as 0.8 or 80%"
	}
	s.CPU = share
	return "", ""
}

// Share reads a share of CPU: "0.8" or "80%".
func Share(text string) (float64, error) {
	digits, percent := strings.CutSuffix(strings.TrimSpace(text), "%")
	f, err := strconv.ParseFloat(digits, 64)
	if percent {
		f /= 100
	}
	if err != nil || !(f > 0 && f <= 1) {
		return 0, fmt.Errorf("%q is no share of CPU", text)
	}
	return f, nil
}

func hostname(s *model.Strategy, values []string) (string, string) {
	v, ok := one(values)
	if _, err := regexp.Compile(v); err != nil || !ok || v == "" {
		return fmt.Sprintf("%q is no regular expression", strings.Join(values, ", ")), `for the whole name, such as "web-.*"`
	}
	s.Hostname = v
	return "", ""
}

func labels(s *model.Strategy, values []string) (string, string) {
	for _, v := range values {
		key, _, _ := strings.Cut(strings.TrimSpace(v), "=")
		if key == "" {
			return fmt.Sprintf("%q is no label", v), "KEY or KEY=VALUE"
		}
		s.Labels = append(s.Labels, strings.TrimSpace(v))
	}
	return "", ""
}

func oneLabel(s *model.Strategy, values []string) (string, string) {
	v, ok := one(values)
	if !ok || v == "" || strings.Contains(v, "=") {
		return fmt.Sprintf("%q is no label to spread over", strings.Join(values, ", ")), "the key of a label, such as zone"
	}
	s.Labels = []string{v}
	return "", ""
}

func timeout(s *model.Strategy, values []string) (string, string) {
	v, _ := one(values)
	if ms, err := strconv.Atoi(v); err == nil { // a bare number is in ms (spec/clocker.md §5.5)
		v = fmt.Sprintf("%dms", ms)
	}
	d, err := time.ParseDuration(strings.ReplaceAll(v, " ", ""))
	if err != nil || d <= 0 {
		return fmt.Sprintf("%q is no duration", strings.Join(values, ", ")), "such as 20m"
	}
	s.Timeout = d
	return "", ""
}

func cores(s *model.Strategy, values []string) (string, string) {
	v, _ := one(values)
	f, err := strconv.ParseFloat(v, 64)
	if err != nil || !(f >= 0 && f <= 1<<16) {
		return fmt.Sprintf("%q is no number of cores", strings.Join(values, ", ")), "such as 2"
	}
	s.Cores = f
	return "", ""
}

func ram(s *model.Strategy, values []string) (string, string) {
	v, _ := one(values)
	n, err := MinRAM(v)
	if err != nil {
		return err.Error(), "a number of MiB, or with a unit, such as 2048 or 2g"
	}
	s.MemoryBytes = n
	return "", ""
}

func memory(s *model.Strategy, values []string) (string, string) {
	v, _ := one(values)
	n, err := units.RAMInBytes(v)
	if err != nil || n < 0 {
		return fmt.Sprintf("%q is no amount of memory", v), "such as 512M or 2g"
	}
	s.MemoryBytes = n
	return "", ""
}

// MinRAM reads minRam as the old Clocker did: a bare number is in MiB.
func MinRAM(text string) (int64, error) {
	text = strings.TrimSpace(text)
	if n, err := strconv.ParseInt(text, 10, 32); err == nil && n >= 0 {
		return n << 20, nil
	}
	n, err := units.RAMInBytes(text)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is no amount of memory", text)
	}
	return n, nil
}

func rules(s *model.Strategy, values []string) (string, string) {
	s.Rules = SplitRules(values)
	return "", ""
}

// SplitRules takes lists of affinity rules apart: one text may hold several,
// parted by commas or ends of line (spec/clocker.md §2.4).
func SplitRules(texts []string) []string {
	var out []string
	for _, t := range texts {
		for _, r := range strings.FieldsFunc(t, func(c rune) bool { return c == ',' || c == '\n' }) {
			if r = strings.TrimSpace(r); r != "" {
				out = append(out, r)
			}
		}
	}
	return out
}
