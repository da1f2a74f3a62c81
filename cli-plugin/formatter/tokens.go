package formatter

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/docker/cli/cli/command/formatter"

	"clocker.io/clocker/pkg/record"
)

const tokenTable = "table {{.ID}}\t{{.Kind}}\t{{.For}}\t{{.State}}\t{{.Expires}}\t{{.CreatedBy}}\t{{.Created}}"

// Tokens renders `docker clocker token ls`.
func Tokens(o Options, tokens []record.Token) error {
	header := formatter.SubHeaderContext{
		"ID": "ID", "Kind": "KIND", "For": "FOR", "State": "STATE", "Expires": "EXPIRES", "CreatedBy": "CREATED BY", "Created": "CREATED",
	}
	return write(o, tokenTable, "{{.ID}}", header, tokens, func(t record.Token) formatter.SubContext {
		return &tokenRow{o: o, t: t}
	})
}

type tokenRow struct {
	formatter.HeaderContext
	o Options
	t record.Token
}

func (r *tokenRow) MarshalJSON() ([]byte, error) { return formatter.MarshalJSON(r) }

func (r *tokenRow) ID() string   { return r.t.ID }
func (r *tokenRow) Kind() string { return r.t.Kind }

// For is the user with the role, or the labels of the host.
func (r *tokenRow) For() string {
	if u := r.t.User; u != nil {
		text := u.Name + " (" + u.Role
		if len(u.Apps) > 0 {
			text += " for " + strings.Join(u.Apps, ", ")
		}
		return r.o.cell(text + ")")
	}
	var labels []string
	for _, k := range slices.Sorted(maps.Keys(r.t.Labels)) {
		labels = append(labels, k+"="+r.t.Labels[k])
	}
	return dash(r.o.cell(strings.Join(labels, ", ")))
}

// State is "good", "used" or "expired".
func (r *tokenRow) State() string {
	switch {
	case !r.t.UsedAt.IsZero():
		return "used"
	case !r.o.Now.Before(r.t.Expires):
		return "expired"
	}
	return "good"
}

func (r *tokenRow) Expires() string   { return r.t.Expires.Local().Format(time.DateTime) }
func (r *tokenRow) CreatedBy() string { return dash(r.t.CreatedBy) }
func (r *tokenRow) Created() string   { return ago(r.o.Now, r.t.CreatedAt) }
