package formatter

import (
	"encoding/json"

	"github.com/docker/cli/cli/command/formatter"

	"clocker.io/clocker/pkg/api"
)

const stepTable = "table {{.Action}}\t{{.Kind}}\t{{.Subject}}\t{{.Host}}\t{{.Cause}}"

// Steps renders the plan of `docker clocker deploy --dry-run`.
func Steps(o Options, steps []api.Step) error {
	header := formatter.SubHeaderContext{
		"Action": "ACTION", "Kind": "KIND", "Subject": "SUBJECT", "Host": "HOST", "Cause": "CAUSE",
	}
	return write(o, stepTable, "{{.Action}} {{.Subject}}", header, steps, func(s api.Step) formatter.SubContext {
		return &stepRow{s: s}
	})
}

type stepRow struct {
	formatter.HeaderContext
	s api.Step
}

// MarshalJSON has what every host says, too, which no column can.
func (r *stepRow) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Action, Kind, Subject, Host, Cause string
		Hosts                              []api.HostVerdict `json:",omitempty"`
	}{r.s.Action, r.s.Kind, r.s.Subject, r.s.Host, r.s.Cause, r.s.Hosts})
}

func (r *stepRow) Action() string  { return r.s.Action }
func (r *stepRow) Kind() string    { return r.s.Kind }
func (r *stepRow) Subject() string { return r.s.Subject }
func (r *stepRow) Host() string    { return dash(r.s.Host) }
func (r *stepRow) Cause() string   { return r.s.Cause }
