package formatter

import (
	"strconv"
	"strings"

	"github.com/docker/cli/cli/command/formatter"

	"clocker.io/clocker/pkg/api"
)

const providerTable = "table {{.Name}}\t{{.Kind}}\t{{.Machines}}\t{{.Hosts}}\t{{.Coming}}\t{{.Failed}}\t{{.Free}}"

// Providers renders `docker clocker provider ls`.
func Providers(o Options, providers []api.Provider) error {
	header := formatter.SubHeaderContext{
		"Name": "NAME", "Kind": "KIND", "Machines": "MACHINES", "Hosts": "HOSTS", "Coming": "COMING", "Failed": "FAILED",
		"Free": "FREE", "Labels": "LABELS", "Problem": "PROBLEM",
	}
	return write(o, providerTable, "{{.Name}}", header, providers, func(p api.Provider) formatter.SubContext {
		return &providerRow{p: p, o: o}
	})
}

type providerRow struct {
	formatter.HeaderContext
	p api.Provider
	o Options
}

func (r *providerRow) MarshalJSON() ([]byte, error) { return formatter.MarshalJSON(r) }

func (r *providerRow) Name() string     { return r.p.Name }
func (r *providerRow) Kind() string     { return r.p.Kind }
func (r *providerRow) Machines() string { return strconv.Itoa(len(r.p.Machines)) }
func (r *providerRow) Hosts() string    { return strconv.Itoa(r.p.Hosts) }
func (r *providerRow) Coming() string   { return strconv.Itoa(r.p.Coming) }
func (r *providerRow) Failed() string   { return strconv.Itoa(r.p.Failed) }
func (r *providerRow) Free() string     { return strconv.Itoa(r.p.Free) }
func (r *providerRow) Labels() string   { return labelList(r.p.Labels) }
func (r *providerRow) Problem() string  { return r.o.cell(r.p.Problem) }

// labelList is labels as one cell, sorted.
func labelList(labels map[string]string) string {
	return strings.Join(sortedPairs(labels), ",")
}
