package formatter

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/cli/templates"

	"clocker.io/clocker/pkg/record"
)

// Event writes one event on a line: as docker events does, as JSON, or by a
// template over record.Event.
func Event(out io.Writer, format string, e record.Event) error {
	switch format {
	case "":
		_, err := fmt.Fprintln(out, eventLine(e))
		return err
	case formatter.JSONFormatKey:
		return json.NewEncoder(out).Encode(e)
	}
	t, err := templates.Parse(format)
	if err != nil {
		return fmt.Errorf("parse format: %w", err)
	}
	if err := t.Execute(out, e); err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	_, err = fmt.Fprintln(out)
	return err
}

func eventLine(e record.Event) string {
	s := fmt.Sprintf("%s %s %s %s", e.At.Format("2006-01-02T15:04:05.000Z07:00"), e.Type, e.Action, e.Subject)
	if len(e.Attrs) > 0 {
		var attrs []string
		for _, k := range slices.Sorted(maps.Keys(e.Attrs)) {
			attrs = append(attrs, k+"="+e.Attrs[k])
		}
		s += " (" + strings.Join(attrs, ", ") + ")"
	}
	if e.Text != "" {
		s += ": " + e.Text
	}
	return s
}
