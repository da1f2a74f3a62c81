package formatter

import (
	"strings"
	"time"

	"github.com/docker/cli/cli/command/formatter"

	"clocker.io/clocker/pkg/record"
)

const userTable = "table {{.Name}}\t{{.Role}}\t{{.Apps}}\t{{.Certificates}}\t{{.Until}}\t{{.CreatedBy}}\t{{.Created}}"

// Users renders `docker clocker user ls`.
func Users(o Options, users []record.User) error {
	header := formatter.SubHeaderContext{
		"Name": "NAME", "Role": "ROLE", "Apps": "APPLICATIONS", "Certificates": "CERTIFICATES", "Until": "UNTIL",
		"CreatedBy": "CREATED BY", "Created": "CREATED",
	}
	return write(o, userTable, "{{.Name}}", header, users, func(u record.User) formatter.SubContext {
		return &userRow{o: o, u: u}
	})
}

type userRow struct {
	formatter.HeaderContext
	o Options
	u record.User
}

func (r *userRow) MarshalJSON() ([]byte, error) { return formatter.MarshalJSON(r) }

func (r *userRow) Name() string { return r.u.Name }
func (r *userRow) Role() string { return r.u.Role }

// Apps are the patterns of the applications that the role is for.
func (r *userRow) Apps() string {
	if len(r.u.Apps) == 0 {
		return "all"
	}
	return r.o.cell(strings.Join(r.u.Apps, ", "))
}

// Certificates is how many were given to the user.
func (r *userRow) Certificates() int { return len(r.u.SerialNumbers) }

// Until is the day on which the last of them ends.
func (r *userRow) Until() string {
	if r.u.Until.IsZero() {
		return "-"
	}
	return r.u.Until.Format(time.DateOnly)
}

func (r *userRow) CreatedBy() string { return dash(r.u.CreatedBy) }
func (r *userRow) Created() string   { return ago(r.o.Now, r.u.CreatedAt) }
