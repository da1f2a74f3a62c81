package model

import (
	"maps"
	"slices"
	"strings"
)

// Value is a scalar that is either known (Text) or computed from other
// entities when they are ready (Expr). Exactly one of the two is meant: a nil
// Expr makes it the literal Text.
type Value struct {
	Text string `json:"text,omitempty"`
	Expr *Expr  `json:"expr,omitempty"`
}

// Text returns the literal value s.
func Text(s string) Value { return Value{Text: s} }

// Literal reports the text of a value that waits for nothing.
func (v Value) Literal() (string, bool) { return v.Text, v.Expr == nil }

// String renders the value as a user would write it.
func (v Value) String() string {
	if v.Expr == nil {
		return v.Text
	}
	return "$brooklyn:" + v.Expr.String()
}

// Expr is one call of the $brooklyn: language (spec/clocker.md §5.6):
// Target.Func(Args...). A nil Target means the entity that declares the
// value. An empty Func makes it no call but a literal collection: the map
// Fields when that is not nil, else the list Args.
type Expr struct {
	Target *Expr   `json:"target,omitempty"`
	Func   string  `json:"func"`
	Args   []Value `json:"args,omitempty"`
	// Fields are the entries of a literal map, such as the argument of
	// entitySpec.
	Fields map[string]Value `json:"fields,omitzero"`
}

// String renders the expression without its $brooklyn: prefix.
func (e *Expr) String() string {
	s := ""
	if e.Target != nil {
		s = e.Target.String() + "."
	}
	if e.Func == "" {
		return s + e.collection()
	}
	return s + e.Func + "(" + values(e.Args) + ")"
}

func (e *Expr) collection() string {
	if e.Fields == nil {
		return "[" + values(e.Args) + "]"
	}
	entries := make([]string, 0, len(e.Fields))
	for _, k := range slices.Sorted(maps.Keys(e.Fields)) {
		entries = append(entries, quote(k)+": "+e.Fields[k].argument())
	}
	return "{" + strings.Join(entries, ", ") + "}"
}

func values(vs []Value) string {
	args := make([]string, len(vs))
	for i, v := range vs {
		args[i] = v.argument()
	}
	return strings.Join(args, ", ")
}

// argument renders the value inside a call, where it needs no prefix.
func (v Value) argument() string {
	if v.Expr != nil {
		return v.Expr.String()
	}
	return quote(v.Text)
}

// quote renders a string with the escapes of the language, and no others.
func quote(s string) string {
	return `"` + strings.NewReplacer("\\", "\\\\", `"`, `\"`, "\n", `\n`, "\t", `\t`, "\r", `\r`).Replace(s) + `"`
}
