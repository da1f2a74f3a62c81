package formatter

import (
	"math"
	"strconv"

	"github.com/docker/cli/cli/command/formatter"

	"clocker.io/clocker/pkg/api"
)

const poolTable = "table {{.Name}}\t{{.CIDR}}\t{{.Size}}\t{{.Networks}}\t{{.Free}}"

// Pools renders `docker clocker pool ls`.
func Pools(o Options, pools []api.Pool) error {
	header := formatter.SubHeaderContext{
		"Name": "NAME", "CIDR": "RANGE", "Size": "SUBNET SIZE", "Networks": "NETWORKS", "Subnets": "SUBNETS", "Free": "FREE SUBNETS",
	}
	return write(o, poolTable, "{{.Name}}", header, pools, func(p api.Pool) formatter.SubContext {
		return &poolRow{p: p}
	})
}

type poolRow struct {
	formatter.HeaderContext
	p api.Pool
}

func (r *poolRow) MarshalJSON() ([]byte, error) { return formatter.MarshalJSON(r) }

func (r *poolRow) Name() string     { return r.p.Name }
func (r *poolRow) CIDR() string     { return r.p.CIDR }
func (r *poolRow) Size() string     { return "/" + strconv.Itoa(r.p.SubnetBits) }
func (r *poolRow) Networks() string { return strconv.Itoa(r.p.Networks) }
func (r *poolRow) Subnets() string  { return many(r.p.Subnets) }
func (r *poolRow) Free() string     { return many(r.p.Free) }

// many writes a count; the highest stands for anything beyond.
func many(n int64) string {
	if n == math.MaxInt64 {
		return "more than 10^18"
	}
	return strconv.FormatInt(n, 10)
}
