package model

import "strconv"

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
// value.
type Expr struct {
	Target *Expr   `json:"target,omitempty"`
	Func   string  `json:"func"`
	Args   []Value `json:"args,omitempty"`
}

// String renders the expression without its $brooklyn: prefix.
func (e *Expr) String() string {
	s := ""
	if e.Target != nil {
		s = e.Target.String() + "."
	}
	s += e.Func + "("
	for i, a := range e.Args {
		if i > 0 {
			s += ", "
		}
		if a.Expr != nil {
			s += a.Expr.String()
		} else {
			s += strconv.Quote(a.Text)
		}
	}
	return s + ")"
}
