package formatter

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/go-units"

	"clocker.io/clocker/pkg/api"
)

const (
	caTable        = "table {{.Kind}}\t{{.Name}}\t{{.Authority}}\t{{.Until}}\t{{.State}}"
	authorityTable = "table {{.ID}}\t{{.Role}}\t{{.Until}}\t{{.Fingerprint}}"
)

// CA renders `docker clocker ca show`: the authorities, and who has certificates
// of them. With the format "json" it is the whole of it, and a template is for
// those who have certificates.
func CA(o Options, c api.CA) error {
	if o.Format == formatter.JSONFormatKey {
		return json.NewEncoder(o.Out).Encode(c)
	}
	if o.Format == "" && !o.Quiet {
		if err := caHead(o, c); err != nil {
			return err
		}
	}
	header := formatter.SubHeaderContext{"Kind": "KIND", "Name": "NAME", "Authority": "SIGNED BY", "Until": "UNTIL", "State": "STATE"}
	return write(o, caTable, "{{.Kind}} {{.Name}}", header, c.Bearers, func(b api.CABearer) formatter.SubContext {
		return &bearerRow{o: o, b: b}
	})
}

func caHead(o Options, c api.CA) error {
	header := formatter.SubHeaderContext{"ID": "AUTHORITY", "Role": "ROLE", "Until": "UNTIL", "Fingerprint": "FINGERPRINT"}
	err := write(o, authorityTable, "", header, c.Authorities, func(a api.Authority) formatter.SubContext { return &authorityRow{o: o, a: a} })
	if err != nil {
		return err
	}
	if c.Stage != "" {
		what := "being changed"
		if c.Back {
			what = "change being taken back"
		}
		if _, err := fmt.Fprintf(o.Out, "\n%s, stage %s, begun by %s %s\n", what, c.Stage, dash(c.By), ago(o.Now, c.Began)); err != nil {
			return err
		}
		for _, w := range c.Waits {
			if _, err := fmt.Fprintf(o.Out, "  waits: %s\n", w); err != nil {
				return err
			}
		}
	}
	for _, a := range c.Authorities {
		if left := a.Until.Sub(o.Now); a.Signs && c.Stage == "" && left < authorityWarning {
			if _, err := fmt.Fprintf(o.Out, "\nThe authority ends in %s, and no certificate holds longer: docker clocker ca rotate makes another.\n", units.HumanDuration(max(left, 0))); err != nil {
				return err
			}
		}
	}
	_, err = fmt.Fprintln(o.Out)
	return err
}

// authorityWarning is how long before an authority's end its owner is told to
// change it: no certificate is made for longer.
const authorityWarning = 365 * 24 * time.Hour

type authorityRow struct {
	formatter.HeaderContext
	o Options
	a api.Authority
}

func (r *authorityRow) MarshalJSON() ([]byte, error) { return formatter.MarshalJSON(r) }

func (r *authorityRow) ID() string          { return shortID(r.a.ID) }
func (r *authorityRow) Until() string       { return ends(r.o.Now, r.a.Until) }
func (r *authorityRow) Fingerprint() string { return r.a.Fingerprint }

// Role is what the authority is used for by now.
func (r *authorityRow) Role() string {
	switch {
	case r.a.Signs && r.a.Serves:
		return "signs"
	case r.a.Signs:
		return "signs for hosts and users"
	case r.a.Serves:
		return "signs for controllers"
	}
	return "is trusted"
}

type bearerRow struct {
	formatter.HeaderContext
	o Options
	b api.CABearer
}

func (r *bearerRow) MarshalJSON() ([]byte, error) { return formatter.MarshalJSON(r) }

func (r *bearerRow) Kind() string      { return r.b.Kind }
func (r *bearerRow) Name() string      { return r.b.Name }
func (r *bearerRow) Authority() string { return dash(shortID(r.b.Authority)) }

func (r *bearerRow) Until() string {
	if r.b.Until.IsZero() {
		return "-"
	}
	return ends(r.o.Now, r.b.Until)
}

// ends is when a certificate ends, and how long that is from now.
func ends(now, t time.Time) string {
	day := t.Format(time.DateOnly)
	if !now.Before(t) {
		return day + " (expired)"
	}
	return fmt.Sprintf("%s (%s)", day, units.HumanDuration(t.Sub(now)))
}

// State says why a change waits for it.
func (r *bearerRow) State() string {
	switch {
	case r.b.Lags != "":
		return r.o.cell(r.b.Lags)
	case r.b.Away:
		return "away"
	}
	return "good"
}

func shortID(s string) string { return s[:min(len(s), 12)] }
