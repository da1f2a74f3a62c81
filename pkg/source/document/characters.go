package document

import (
	"fmt"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v4"

	"clocker.io/clocker/pkg/model"
)

// Typographic reports whether r is a quotation mark that word processors and
// slides put in the place of " and '.
func Typographic(r rune) bool { return strings.ContainsRune("“”„‟‘’‚‛«»", r) }

// Blank reports whether r looks like a blank but is none to YAML: a
// non-breaking space, the spaces of typography, a mark without width.
func Blank(r rune) bool {
	return r > 0x7f && (unicode.IsSpace(r) || strings.ContainsRune("\u200b\u200c\u200d\u2060\ufeff", r))
}

// invisible finds tabs in the indentation and blanks that are none, outside
// comments, line by line. It is asked when the text could not be parsed.
func invisible(file string, lines []string) model.Problems {
	var ps model.Problems
	for i, line := range lines {
		indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
		if tab := strings.IndexByte(indent, '\t'); tab >= 0 && strings.TrimSpace(line) != "" {
			ps = append(ps, model.Problem{
				Position: model.Position{File: file, Line: i + 1, Column: tab + 1},
				Text:     "a tab indents this line", Remedy: "YAML is indented by spaces only",
			})
		}
		for column, r := range []rune(line) {
			if r == '#' {
				break
			}
			if Blank(r) {
				ps = append(ps, blankProblem(model.Position{File: file, Line: i + 1, Column: column + 1}, "", r))
				break
			}
		}
	}
	return ps
}

func blankProblem(at model.Position, path string, r rune) model.Problem {
	return model.Problem{
		Position: at, Path: path,
		Text:   fmt.Sprintf("non-ASCII blank (U+%04X) at line %d", r, at.Line),
		Remedy: "replace it by a plain space",
	}
}

// Characters finds blanks that are none and typographic quotes where the
// author meant plain ones: in plain scalars (quoted ones may hold anything)
// and in expressions of the $brooklyn: language.
func (d *Document) Characters() model.Problems {
	var ps model.Problems
	seen := map[*yaml.Node]bool{}
	var walk func(n *yaml.Node, path string)
	walk = func(n *yaml.Node, path string) {
		if n == nil || seen[n] {
			return
		}
		seen[n] = true
		switch n.Kind {
		case yaml.ScalarNode:
			ps = append(ps, d.scalarCharacters(n, path)...)
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				walk(n.Content[i], path)
				walk(n.Content[i+1], Join(path, n.Content[i].Value))
			}
		case yaml.SequenceNode:
			for i, c := range n.Content {
				walk(c, Index(path, i))
			}
		}
	}
	walk(d.Root, "")
	return ps
}

func (d *Document) scalarCharacters(n *yaml.Node, path string) model.Problems {
	plain := n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0
	expression := strings.HasPrefix(strings.TrimSpace(n.Value), "$brooklyn:")
	if !plain && !expression {
		return nil
	}
	runes := []rune(n.Value)
	for i, r := range runes {
		if Blank(r) {
			return model.Problems{blankProblem(d.find(n, r), path, r)}
		}
		edge := i == 0 || i == len(runes)-1
		if Typographic(r) && (edge || expression) {
			return model.Problems{{
				Position: d.find(n, r), Path: path,
				Text:   fmt.Sprintf("typographic quote %c (U+%04X)", r, r),
				Remedy: `write a plain " instead`,
			}}
		}
	}
	return nil
}

// find locates the first r at or after the start of a node.
func (d *Document) find(n *yaml.Node, r rune) model.Position {
	for l := n.Line - 1; l >= 0 && l < len(d.Lines); l++ {
		for c, q := range []rune(d.Lines[l]) {
			if q == r && (l > n.Line-1 || c >= n.Column-1) {
				return model.Position{File: d.File, Line: l + 1, Column: c + 1}
			}
		}
	}
	return d.At(n)
}
