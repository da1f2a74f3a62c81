package strategy

import (
	"maps"
	"slices"
	"strings"

	"clocker.io/clocker/pkg/model"
)

// The short names of strategies.
const (
	DepthFirst        = "depth-first"
	BreadthFirst      = "breadth-first"
	Random            = "random"
	LeastContainers   = "least-containers"
	LowestCPU         = "lowest-cpu"
	MaxContainers     = "max-containers"
	MaxCPU            = "max-cpu"
	Hostname          = "hostname"
	Label             = "label"
	Group             = "group"
	ProvisioningFlags = "provisioning-flags"
	Affinity          = "affinity"
	Spread            = "spread"
	Binpack           = "binpack"
	MaxPerHost        = "max-replicas-per-host"
	ZoneSpread        = "zone-spread"
)

// classes are the simple class names of the old Clocker (spec/clocker.md §2.2)
// and what they are called here.
var classes = map[string]string{
	"DepthFirstPlacementStrategy":        DepthFirst,
	"BreadthFirstPlacementStrategy":      BreadthFirst,
	"RandomPlacementStrategy":            Random,
	"LeastContainersPlacementStrategy":   LeastContainers,
	"LowestCpuUsagePlacementStrategy":    LowestCPU,
	"MaxContainersPlacementStrategy":     MaxContainers,
	"MaxCpuUsagePlacementStrategy":       MaxCPU,
	"HostnamePlacementStrategy":          Hostname,
	"LabelPlacementStrategy":             Label,
	"GroupPlacementStrategy":             Group,
	"ProvisioningFlagsPlacementStrategy": ProvisioningFlags,
	"DockerAffinityRuleStrategy":         Affinity,
}

// packages are where the classes lived, over the years.
var packages = []string{
	"clocker.docker.location.strategy.basic.", "clocker.docker.location.strategy.affinity.", "clocker.docker.location.strategy.",
	"brooklyn.location.docker.strategy.basic.", "brooklyn.location.docker.strategy.affinity.", "brooklyn.location.docker.strategy.",
}

// Names are the short names, sorted.
func Names() []string { return slices.Sorted(maps.Keys(options)) }

// Name finds the short name of a strategy, whichever way it is written. The
// remedy says what may have been meant where there is none.
func Name(text string) (name, remedy string, ok bool) {
	bare := text
	for _, p := range packages {
		if rest, found := strings.CutPrefix(text, p); found {
			bare = rest
			break
		}
	}
	if n, found := classes[bare]; found {
		return n, "", true
	}
	if n := strings.ToLower(text); bare == text && options[n] != nil {
		return n, "", true
	}
	known := append(Names(), slices.Sorted(maps.Keys(classes))...)
	return "", model.DidYouMean(bare, known, "the strategies are "+strings.Join(Names(), ", ")), false
}
