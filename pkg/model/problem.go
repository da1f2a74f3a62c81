package model

import (
	"fmt"
	"sort"
	"strings"
)

// Position is a place in a user's file. Line and Column count from 1; 0 means
// not known.
type Position struct {
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
}

// String renders "file:line:column" with the parts that are known.
func (p Position) String() string {
	s := p.File
	if p.Line > 0 {
		s += fmt.Sprintf(":%d", p.Line)
		if p.Column > 0 {
			s += fmt.Sprintf(":%d", p.Column)
		}
	}
	return s
}

// Problem is one thing that keeps a file from being deployed: what is wrong,
// where, and what to do.
type Problem struct {
	Position Position `json:"position,omitzero"`
	// Path is the place in the document, such as "services[1].links".
	Path string `json:"path,omitempty"`
	// Text says what is wrong, in lower case, without a full stop.
	Text string `json:"text"`
	// Remedy says what to do about it; may be empty.
	Remedy string `json:"remedy,omitempty"`
}

// String renders the problem on one line:
// "app.yaml:7:3: services[1].type: unknown type "x" (did you mean "y"?)".
func (p Problem) String() string {
	var parts []string
	if s := p.Position.String(); s != "" {
		parts = append(parts, s)
	}
	if p.Path != "" {
		parts = append(parts, p.Path)
	}
	parts = append(parts, p.Text)
	s := strings.Join(parts, ": ")
	if p.Remedy != "" {
		s += " (" + p.Remedy + ")"
	}
	return s
}

// Problems is every problem of a file at once. It is an error when not empty.
type Problems []Problem

// Error lists the problems, one a line, in file order.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Sort puts the problems in file order.
func (ps Problems) Sort() {
	sort.SliceStable(ps, func(i, j int) bool {
		a, b := ps[i].Position, ps[j].Position
		if a.File != b.File {
			return a.File < b.File
		}
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		return a.Column < b.Column
	})
}

// Err returns the problems as an error, or nil when there are none.
func (ps Problems) Err() error {
	if len(ps) == 0 {
		return nil
	}
	ps.Sort()
	return ps
}
