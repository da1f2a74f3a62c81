// Package dsl is the $brooklyn: expression language of blueprints: parsing
// into [model.Expr], and evaluation of the expressions that depend on nothing
// but their own arguments. It resolves no entity, waits for nothing and knows
// nothing of YAML: a caller hands it the text of a scalar, or the name and
// the arguments of the map form.
//
// The grammar and the functions are those of spec/clocker.md §5.6 and §5.7.
//
// Design page: docs/design/blueprint.md.
package dsl

import (
	"fmt"
	"strings"
)

// Prefix starts every expression.
const Prefix = "$brooklyn:"

// Is reports whether a scalar is an expression rather than plain text.
func Is(text string) bool { return strings.HasPrefix(strings.TrimLeft(text, " \t\r\n"), Prefix) }

// Error says what is wrong with an expression.
type Error struct {
	// Offset counts the bytes of the text before the place that is wrong.
	Offset int
	// Text says what is wrong; Remedy what to do, and may be empty.
	Text   string
	Remedy string
}

// Error renders the error on one line.
func (e *Error) Error() string {
	s := fmt.Sprintf("character %d: %s", e.Offset+1, e.Text)
	if e.Remedy != "" {
		s += " (" + e.Remedy + ")"
	}
	return s
}
