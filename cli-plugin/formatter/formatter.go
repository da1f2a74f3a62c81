// Package formatter renders lists as docker's own commands do: tables, names
// only, JSON lines or a Go template of the user's. It turns API records into
// text and never calls anything.
//
// Design page: docs/design/cli.md.
package formatter

import (
	"io"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/cli/cli/command/formatter"
)

// Options say how a list is rendered.
type Options struct {
	Out io.Writer
	// Format is "", "table", "json", "table TEMPLATE" or "TEMPLATE".
	Format string
	// Quiet prints only what identifies each row.
	Quiet bool
	// NoTrunc keeps long cells whole.
	NoTrunc bool
	// Now is the moment that ages are told from.
	Now time.Time
}

// maxCell is the widest that a cell of free text may be in a table.
const maxCell = 60

// write renders rows with a default table, or what the options ask for. quiet
// is the template of what identifies a row.
func write[T any](o Options, table, quiet string, header formatter.SubHeaderContext, items []T, row func(T) formatter.SubContext) error {
	format := formatter.Format(o.Format)
	switch {
	case o.Quiet:
		format = formatter.Format(quiet)
	case o.Format == "" || o.Format == formatter.TableFormatKey:
		format = formatter.Format(table)
	}
	ctx := formatter.Context{Output: o.Out, Format: format, Trunc: !o.NoTrunc}
	return ctx.Write(&formatter.HeaderContext{Header: header}, func(render func(formatter.SubContext) error) error {
		for _, it := range items {
			if err := render(row(it)); err != nil {
				return err
			}
		}
		return nil
	})
}

// cell makes free text fit a table: one line, not too wide.
func (o Options) cell(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if o.NoTrunc {
		return s
	}
	return formatter.Ellipsis(s, maxCell)
}

// image is an image reference as a user writes it. A digest is left out unless
// cells are kept whole.
func (o Options) image(ref string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ref
	}
	if tagged, ok := named.(reference.Tagged); ok && !o.NoTrunc {
		if short, err := reference.WithTag(reference.TrimNamed(named), tagged.Tag()); err == nil {
			named = short
		}
	}
	return reference.FamiliarString(named)
}

// dash stands for what is not known.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
