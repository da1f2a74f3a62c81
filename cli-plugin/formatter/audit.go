package formatter

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/cli/templates"

	"clocker.io/clocker/pkg/record"
)

const auditTable = "table {{.At}}\t{{.User}}\t{{.Role}}\t{{.From}}\t{{.Action}}\t{{.Subject}}\t{{.Result}}\t{{.Reason}}"

// Audit renders `docker clocker audit`.
func Audit(o Options, entries []record.AuditEntry) error {
	header := formatter.SubHeaderContext{
		"ID": "ID", "At": "AT", "User": "USER", "Role": "ROLE", "From": "FROM", "Action": "ACTION", "Subject": "SUBJECT",
		"Result": "RESULT", "Reason": "REASON",
	}
	return write(o, auditTable, "{{.ID}}", header, entries, func(e record.AuditEntry) formatter.SubContext {
		return &auditRow{o: o, e: e}
	})
}

// AuditLine writes one entry as it comes: on a line, as JSON, or by a template
// over record.AuditEntry.
func AuditLine(o Options, e record.AuditEntry) error {
	switch {
	case o.Format == formatter.JSONFormatKey:
		return json.NewEncoder(o.Out).Encode(e)
	case o.Format == "" || strings.HasPrefix(o.Format, formatter.TableFormatKey):
		r := auditRow{o: o, e: e}
		line := fmt.Sprintf("%s %s (%s) from %s: %s %s: %s", r.At(), r.User(), r.Role(), r.From(), e.Action, e.Subject, e.Result)
		if e.Reason != "" {
			line += ": " + r.Reason()
		}
		_, err := fmt.Fprintln(o.Out, line)
		return err
	}
	t, err := templates.Parse(o.Format)
	if err != nil {
		return fmt.Errorf("parse format: %w", err)
	}
	if err := t.Execute(o.Out, e); err != nil {
		return fmt.Errorf("write entry: %w", err)
	}
	_, err = fmt.Fprintln(o.Out)
	return err
}

type auditRow struct {
	formatter.HeaderContext
	o Options
	e record.AuditEntry
}

func (r *auditRow) MarshalJSON() ([]byte, error) { return formatter.MarshalJSON(r) }

func (r *auditRow) ID() string      { return r.e.ID }
func (r *auditRow) At() string      { return r.e.At.Local().Format("2006-01-02T15:04:05.000Z07:00") }
func (r *auditRow) User() string    { return dash(r.e.User) }
func (r *auditRow) Role() string    { return dash(r.e.Role) }
func (r *auditRow) From() string    { return dash(r.e.From) }
func (r *auditRow) Action() string  { return r.e.Action }
func (r *auditRow) Subject() string { return dash(r.o.cell(r.e.Subject)) }
func (r *auditRow) Result() string  { return r.e.Result }
func (r *auditRow) Reason() string  { return r.o.cell(r.e.Reason) }
