// Package document reads the YAML text of a user's file into nodes that know
// where they stand, and says what is wrong with text that is no YAML in words
// a user understands: the line, a tab, a blank that only looks like one. It
// knows nothing of blueprints or compose files and opens no file.
//
// The parser is the one that compose-go uses, so that both see the same tree.
//
// Design page: docs/design/model.md.
package document

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"clocker.io/clocker/pkg/model"
)

// MaxSize is the largest file that is read: 4 MiB.
const MaxSize = 4 << 20

// Document is one YAML document of a file.
type Document struct {
	// File is the name shown to the user.
	File string
	// Root is the content of the document: a mapping, a sequence, a scalar.
	// It is nil when the document is empty.
	Root *yaml.Node
	// Lines are the lines of the whole file, the first one at index 0.
	Lines []string
}

// At returns the position of a node.
func (d *Document) At(n *yaml.Node) model.Position {
	if n == nil {
		return model.Position{File: d.File, Line: 1}
	}
	return model.Position{File: d.File, Line: n.Line, Column: n.Column}
}

// Parse reads every document of a file. The problems are about the text as
// YAML; with any, there are no documents.
func Parse(file string, content []byte) ([]*Document, model.Problems) {
	content = bytes.TrimPrefix(content, []byte("\ufeff"))
	if len(content) > MaxSize {
		return nil, model.Problems{{
			Position: model.Position{File: file},
			Text:     fmt.Sprintf("the file is larger than %d MiB", MaxSize>>20),
		}}
	}
	if p := notText(file, content); p != nil {
		return nil, model.Problems{*p}
	}
	lines := strings.Split(string(content), "\n")
	var docs []*Document
	dec := yaml.NewDecoder(bytes.NewReader(content))
	for {
		var n yaml.Node
		err := dec.Decode(&n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, syntax(file, lines, err)
		}
		d := &Document{File: file, Lines: lines}
		if len(n.Content) > 0 {
			d.Root = n.Content[0]
		}
		docs = append(docs, d)
	}
	if ps := duplicates(docs); len(ps) > 0 {
		return nil, ps
	}
	return docs, nil
}

// notText finds bytes that no text file has, and line breaks that editors do
// not count: YAML does, and every line after them would be numbered wrong.
func notText(file string, content []byte) *model.Problem {
	for i, line := range bytes.Split(content, []byte("\n")) {
		at := model.Position{File: file, Line: i + 1}
		if !utf8.Valid(line) {
			return &model.Problem{Position: at, Text: "the file is not text in UTF-8", Remedy: "save it as UTF-8"}
		}
		if bytes.IndexByte(line, 0) >= 0 {
			return &model.Problem{Position: at, Text: "the file holds a zero byte: it is no text file"}
		}
		line = bytes.TrimSuffix(line, []byte("\r"))
		if i := bytes.IndexAny(line, "\r\u0085\u2028\u2029"); i >= 0 {
			r, _ := utf8.DecodeRune(line[i:])
			at.Column = utf8.RuneCount(line[:i]) + 1
			return &model.Problem{Position: at, Text: fmt.Sprintf("a line break that editors do not show (U+%04X)", r), Remedy: "replace it by a plain new line"}
		}
	}
	return nil
}

var (
	lineNumber = regexp.MustCompile(`line (\d+)`)
	place      = regexp.MustCompile(`^(while [a-z ]+ )?(at )?(line \d+(, column \d+)?|<unknown position>): `)
)

// syntax turns the parser's error into problems. Causes that a user cannot
// see in an editor come first, since they make the parser's own words
// misleading.
func syntax(file string, lines []string, err error) model.Problems {
	if ps := invisible(file, lines); len(ps) > 0 {
		return ps
	}
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 0
	if all := lineNumber.FindAllStringSubmatch(text, -1); all != nil {
		line, _ = strconv.Atoi(all[len(all)-1][1])
	}
	// The parser proper counts lines from 0 where the scanner counts from 1.
	if strings.HasSuffix(fmt.Sprintf("%T", err), "ParserError") && !strings.HasPrefix(fmt.Sprintf("%T", err), "*") {
		line++
	}
	line = max(1, min(line, len(lines)))
	for {
		short := place.ReplaceAllString(text, "")
		if short == text {
			break
		}
		text = short
	}
	return model.Problems{{
		Position: model.Position{File: file, Line: line},
		Text:     "not YAML: " + text,
		Remedy:   remedy(text),
	}}
}

func remedy(text string) string {
	switch {
	case strings.Contains(text, "mapping values are not allowed"):
		return `look for a key that is indented too far, or quote a value that holds ": "`
	case strings.Contains(text, "cannot start any token"):
		return "quote a value that starts with %, @ or `"
	case strings.Contains(text, "end of stream"):
		return "a quote or a bracket is not closed"
	case strings.Contains(text, "unknown anchor"):
		return "define it with & before it is used"
	case strings.Contains(text, "did not find expected"), strings.Contains(text, "could not find expected"):
		return "look at the indentation of this line and of the one before, and for a bracket or quote that is not closed"
	}
	return ""
}
