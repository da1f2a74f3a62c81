package placement

import (
	"errors"
	"fmt"
	"strings"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/strategy"
)

// StrategyName finds the short name of a strategy written as a short name or
// as a class of the old Clocker (spec/clocker.md §2.2). pkg/strategy says what
// may have been meant where there is none.
func StrategyName(text string) (short string, ok bool) {
	short, _, ok = strategy.Name(text)
	return short, ok
}

// StrategyNames are the short names, sorted.
func StrategyNames() []string { return strategy.Names() }

// CheckStrategy finds what a member of a chain lacks or has out of bounds, all
// of it. Rules of affinity are for [ParseAffinity].
func CheckStrategy(s model.Strategy) error {
	name, remedy, ok := strategy.Name(s.Name)
	if !ok || name != s.Name {
		if ok {
			remedy = "its short name is " + name
		}
		return fmt.Errorf("strategy %q is not known (%s)", s.Name, remedy)
	}
	var errs []error
	add := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("strategy "+s.Name+" "+format, args...))
	}
	if s.Containers < 0 || s.Containers == 0 && name == strategy.MaxPerHost {
		add("bounds containers by %d (1 or more)", s.Containers)
	}
	if !(s.CPU >= 0 && s.CPU <= 1) {
		add("bounds CPU usage by %v (more than 0 and at most 1)", s.CPU)
	}
	if !(s.Cores >= 0) || s.MemoryBytes < 0 {
		add("asks for %v cores and %d bytes of memory (0 or more)", s.Cores, s.MemoryBytes)
	}
	if s.Timeout < 0 {
		add("has a timeout of %s (0 or more)", s.Timeout)
	}
	if s.Soft && sorts(name) {
		add("is soft, but it only orders hosts (leave soft out)")
	}
	switch name {
	case strategy.Hostname:
		if _, err := wholeName(s.Hostname); err != nil {
			errs = append(errs, err)
		}
	case strategy.ZoneSpread:
		if len(s.Labels) > 1 {
			add("spreads over one label, not %d (write the strategy once for each)", len(s.Labels))
		}
		for _, l := range s.Labels {
			if _, err := ParsePreference(l); err != nil {
				errs = append(errs, err)
			}
		}
	case strategy.Label:
		for _, l := range s.Labels {
			if key, _, _ := strings.Cut(l, "="); strings.TrimSpace(key) == "" {
				add("has %q, which is no label (KEY or KEY=VALUE)", l)
			}
		}
	case strategy.Affinity:
		if len(s.Rules) == 0 {
			add("lacks rules (such as NOT TYPE)")
		}
	}
	return errors.Join(errs...)
}

// sorts reports whether a strategy orders hosts and refuses none.
func sorts(name string) bool {
	switch name {
	case strategy.DepthFirst, strategy.BreadthFirst, strategy.Random, strategy.LeastContainers, strategy.LowestCPU,
		strategy.Spread, strategy.Binpack, strategy.ZoneSpread:
		return true
	}
	return false
}
