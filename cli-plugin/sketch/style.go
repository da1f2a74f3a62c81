package sketch

import (
	"fmt"
	"strings"

	"github.com/mattn/go-runewidth"

	"clocker.io/clocker/pkg/trace"
)

// The control sequences a terminal is drawn with (ECMA-48).
const (
	green, red, yellow, blue = "\x1b[32m", "\x1b[31m", "\x1b[33m", "\x1b[34m"
	reset                    = "\x1b[0m"
)

// Style is how drawings look.
type Style struct {
	// Width is the terminal's in columns; 0 means any number.
	Width  int
	Colour bool
}

func (s Style) paint(colour, text string) string {
	if !s.Colour || text == "" || colour == "" {
		return text
	}
	return colour + text + reset
}

// colourOf and signOf are those of the states of nodes and hops.
func colourOf(state string) string {
	switch state {
	case OK:
		return green
	case Failed, trace.StateBroken:
		return red
	}
	return yellow
}

func signOf(state string) string {
	switch state {
	case OK:
		return "✔"
	case Failed, trace.StateBroken:
		return "✘"
	case trace.StateUnknown:
		return "?"
	}
	return "○"
}

// Tree draws a node and what belongs to it, one line each.
func (s Style) Tree(n Node) []string {
	lines := []string{s.line("", n, true, 0)}
	return append(lines, s.parts("", n.Parts)...)
}

func (s Style) parts(indent string, parts []Node) []string {
	var lines []string
	column := 0
	for _, p := range parts {
		column = max(column, runewidth.StringWidth(caption(p, false)))
	}
	for i, p := range parts {
		twig, below := "├── ", "│   "
		if i == len(parts)-1 {
			twig, below = "└── ", "    "
		}
		lines = append(lines, s.line(indent+twig, p, false, column))
		lines = append(lines, s.parts(indent+below, p.Parts)...)
	}
	return lines
}

// caption is what a node is called in a tree.
func caption(n Node, top bool) string {
	if n.Kind == "host" || top {
		return n.Kind + " " + n.Name
	}
	return n.Name
}

// line is one node: a sign, its name, and from the column on the facts as far
// as there is room.
func (s Style) line(indent string, n Node, top bool, column int) string {
	name, facts := caption(n, top), strings.Join(n.Facts, " · ")
	head := indent + signOf(n.State) + " " + runewidth.FillRight(name, column)
	if s.Width > 0 {
		room := s.Width - runewidth.StringWidth(head) - 2
		if room < 1 {
			return s.paint(colourOf(n.State), runewidth.Truncate(indent+signOf(n.State)+" "+name, max(1, s.Width), "…"))
		}
		facts = runewidth.Truncate(facts, room, "…")
	}
	colour := ""
	if n.State != OK {
		colour = colourOf(n.State)
	}
	if facts == "" {
		return indent + s.paint(colourOf(n.State), signOf(n.State)) + " " + s.paint(blueIf(top), name)
	}
	return indent + s.paint(colourOf(n.State), signOf(n.State)) + " " +
		s.paint(blueIf(top), runewidth.FillRight(name, column)) + "  " + s.paint(colour, facts)
}

func blueIf(yes bool) string {
	if yes {
		return blue
	}
	return ""
}

// Trace draws a connection hop by hop.
func (s Style) Trace(r trace.Result) []string {
	kind, host := 0, 0
	for _, h := range r.Hops {
		kind, host = max(kind, len(h.Kind)), max(host, runewidth.StringWidth(h.Host))
	}
	lines := []string{s.paint(blue, s.headline(r))}
	for _, h := range r.Hops {
		head := " " + signOf(h.State) + " "
		columns := runewidth.FillRight(h.Kind, kind) + "  " + runewidth.FillRight(h.Host, host)
		if host > 0 {
			columns += "  "
		}
		indent := strings.Repeat(" ", runewidth.StringWidth(head+columns))
		for i, part := range s.wrap(h.Text, runewidth.StringWidth(indent)) {
			if h.State == trace.StateBroken {
				part = s.paint(red, part)
			}
			if i == 0 {
				lines = append(lines, s.paint(colourOf(h.State), head)+columns+part)
			} else {
				lines = append(lines, indent+part)
			}
		}
		if h.Hint != "" {
			for i, part := range s.wrap(h.Hint, runewidth.StringWidth(indent)+2) {
				arrow := "  "
				if i == 0 {
					arrow = "→ "
				}
				lines = append(lines, indent+s.paint(yellow, arrow+part))
			}
		}
	}
	for _, a := range r.Away {
		lines = append(lines, s.note(Waiting, "gets no connections: "+a)...)
	}
	if len(r.Same) > 0 {
		lines = append(lines, s.note(OK, "as good to "+strings.Join(r.Same, ", "))...)
	}
	return append(lines, s.verdict(r))
}

func (s Style) note(state, text string) []string {
	var out []string
	for i, part := range s.wrap(text, 3) {
		sign := "   "
		if i == 0 {
			sign = " " + signOf(state) + " "
		}
		out = append(out, s.paint(colourOf(state), sign)+part)
	}
	return out
}

func (s Style) headline(r trace.Result) string {
	what := r.Protocol
	if r.Port != 0 {
		what = fmt.Sprintf("%s port %d", r.Protocol, r.Port)
	}
	return fmt.Sprintf("%s → %s, %s", r.From, r.To, what)
}

func (s Style) verdict(r trace.Result) string {
	if b := r.Broken(); b != nil {
		where := ""
		if b.Host != "" {
			where = " on host " + b.Host
		}
		return s.paint(red, fmt.Sprintf("broken at the %s%s", b.Kind, where))
	}
	return s.paint(green, "nothing is in the way")
}

// wrap breaks text into lines that fit beside an indent.
func (s Style) wrap(text string, indent int) []string {
	room := s.Width - indent
	if s.Width <= 0 || room < 20 {
		return []string{text}
	}
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case runewidth.StringWidth(line+" "+word) > room:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}
