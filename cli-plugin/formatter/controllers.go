package formatter

import (
	"fmt"
	"strconv"

	"github.com/docker/cli/cli/command/formatter"

	"clocker.io/clocker/pkg/api"
)

const controllerTable = "table {{.Name}}\t{{.Host}}\t{{.Address}}\t{{.Status}}\t{{.Etcd}}\t{{.Version}}\t{{.Since}}"

// Controllers renders `docker clocker controller ls`.
func Controllers(o Options, cs []api.Controller) error {
	header := formatter.SubHeaderContext{
		"Name": "NAME", "Host": "HOST", "Address": "ADDRESS", "URL": "URL", "Endpoint": "ENDPOINT", "Status": "STATUS",
		"Etcd": "ETCD", "Version": "VERSION", "Since": "SINCE", "Added": "ADDED", "Term": "TERM", "Lag": "LAG", "Member": "MEMBER",
	}
	return write(o, controllerTable, "{{.Name}}", header, cs, func(c api.Controller) formatter.SubContext {
		return &controllerRow{o: o, c: c}
	})
}

type controllerRow struct {
	formatter.HeaderContext
	o Options
	c api.Controller
}

func (r *controllerRow) MarshalJSON() ([]byte, error) { return formatter.MarshalJSON(r) }

func (r *controllerRow) Name() string     { return r.c.Name }
func (r *controllerRow) Host() string     { return dash(r.c.Host) }
func (r *controllerRow) Address() string  { return r.c.Address }
func (r *controllerRow) URL() string      { return r.c.URL }
func (r *controllerRow) Endpoint() string { return r.c.Endpoint }
func (r *controllerRow) Status() string   { return r.c.Status }
func (r *controllerRow) Version() string  { return dash(r.c.Version) }
func (r *controllerRow) Added() string    { return ago(r.o.Now, r.c.AddedAt) }

// Since is when it came up.
func (r *controllerRow) Since() string {
	if r.c.Since.IsZero() {
		return "-"
	}
	return ago(r.o.Now, r.c.Since)
}

// Etcd is the state of its member of etcd: "voter, leader", "learner, 12
// behind", "external".
func (r *controllerRow) Etcd() string {
	m := r.c.Etcd
	switch {
	case m == nil:
		return "external"
	case m.State == api.MemberUnstarted || m.State == api.MemberGone:
		return m.State
	case !m.Healthy:
		return m.State + ", down"
	case m.Leader:
		return m.State + ", leader"
	case m.Lag > 0:
		return fmt.Sprintf("%s, %d behind", m.State, m.Lag)
	}
	return m.State
}

// Member is the id of its member of etcd.
func (r *controllerRow) Member() string {
	if r.c.Etcd == nil {
		return "-"
	}
	return dash(r.c.Etcd.ID)
}

// Term is raft's term as its member sees it.
func (r *controllerRow) Term() string {
	if r.c.Etcd == nil || !r.c.Etcd.Healthy {
		return "-"
	}
	return strconv.FormatUint(r.c.Etcd.Term, 10)
}

// Lag is how many entries its member is behind.
func (r *controllerRow) Lag() string {
	if r.c.Etcd == nil || !r.c.Etcd.Healthy {
		return "-"
	}
	return strconv.FormatUint(r.c.Etcd.Lag, 10)
}
