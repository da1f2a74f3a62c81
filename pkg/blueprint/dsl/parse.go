package dsl

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/source/document"
)

// deepest is how far calls may be nested.
const deepest = 100

// Parse reads the text of a scalar, with or without [Prefix]. Its error is
// an [*Error].
func Parse(text string) (*model.Expr, error) {
	p := &parser{text: text}
	p.blanks()
	if strings.HasPrefix(p.rest(), Prefix) {
		p.pos += len(Prefix)
	}
	e, err := p.expression()
	if err != nil {
		return nil, err
	}
	return e, nil
}

type parser struct {
	text  string
	pos   int
	depth int
	// mapForm makes the last call of the chain take mapArgs.
	mapForm bool
	mapArgs []model.Value
	mapUsed bool
}

func (p *parser) rest() string { return p.text[p.pos:] }

func (p *parser) fail(remedy, format string, args ...any) *Error {
	return &Error{p.pos, fmt.Sprintf(format, args...), remedy}
}

// expression reads a whole text: one chain and nothing after it.
func (p *parser) expression() (*model.Expr, *Error) {
	e, err := p.chain(true)
	if err != nil {
		return nil, err
	}
	p.blanks()
	if p.pos < len(p.text) {
		return nil, p.unexpected("text after the expression: %s", p.here())
	}
	return e, nil
}

// chain reads call { "." call }. Where bare is set, a call without arguments
// needs no parentheses.
func (p *parser) chain(bare bool) (*model.Expr, *Error) {
	var e *model.Expr
	for {
		p.blanks()
		start := p.pos
		name := p.name()
		if name == "" {
			return nil, p.unexpected("expected the name of a function, found %s", p.here())
		}
		p.blanks()
		var args []model.Value
		switch {
		case strings.HasPrefix(p.rest(), "("):
			var err *Error
			if args, err = p.arguments(); err != nil {
				return nil, err
			}
		case p.mapForm && p.depth == 0 && !strings.HasPrefix(p.rest(), "."):
			args, p.mapUsed = p.mapArgs, true
		case !bare && e == nil && name != namespace:
			return nil, &Error{start, fmt.Sprintf("%s needs parentheses here", name), "write " + name + "()"}
		}
		var err *Error
		if e, err = call(e, name, args, start); err != nil {
			return nil, err
		}
		p.blanks()
		if !strings.HasPrefix(p.rest(), ".") {
			if e.Target == nil && e.Func == namespace {
				return nil, p.fail("write function.regexReplacement(pattern, replacement)", "function is no value by itself")
			}
			return e, nil
		}
		p.pos++
	}
}

// arguments reads "(" [ argument { "," argument } ] ")".
func (p *parser) arguments() ([]model.Value, *Error) {
	open := p.pos
	if p.depth++; p.depth > deepest {
		return nil, p.fail("", "calls are nested more than %d deep", deepest)
	}
	defer func() { p.depth-- }()
	p.pos++
	var args []model.Value
	p.blanks()
	if strings.HasPrefix(p.rest(), ")") {
		p.pos++
		return args, nil
	}
	for {
		v, err := p.argument()
		if err != nil {
			return nil, err
		}
		args = append(args, v)
		p.blanks()
		switch {
		case strings.HasPrefix(p.rest(), ","):
			p.pos++
		case strings.HasPrefix(p.rest(), ")"):
			p.pos++
			return args, nil
		case p.pos == len(p.text):
			p.pos = open
			return nil, p.fail("close it with )", "this parenthesis is not closed")
		default:
			return nil, p.unexpected(`expected "," or ")", found %s`, p.here())
		}
	}
}

// argument reads an expression, a quoted text, or a number or word.
func (p *parser) argument() (model.Value, *Error) {
	p.blanks()
	switch {
	case strings.HasPrefix(p.rest(), `"`):
		s, err := p.quoted()
		return model.Text(s), err
	case strings.HasPrefix(p.rest(), Prefix):
		p.pos += len(Prefix)
		return p.nested(true)
	}
	start := p.pos
	name := p.name()
	p.blanks()
	call := strings.HasPrefix(p.rest(), "(") || name == namespace && strings.HasPrefix(p.rest(), ".")
	p.pos = start
	if name != "" && call {
		return p.nested(false)
	}
	word := p.word()
	if word == "" {
		return model.Value{}, p.unexpected("expected an argument, found %s", p.here())
	}
	p.blanks()
	if strings.HasPrefix(p.rest(), "(") {
		p.pos = start
		return model.Value{}, p.fail("a function without arguments needs its parentheses here, as in self().config(\"k\")", "%q is no function", word)
	}
	return model.Text(word), nil
}

func (p *parser) nested(bare bool) (model.Value, *Error) {
	e, err := p.chain(bare)
	if err != nil {
		return model.Value{}, err
	}
	return model.Value{Expr: e}, nil
}

func (p *parser) blanks() {
	p.pos = len(p.text) - len(strings.TrimLeft(p.rest(), " \t\r\n"))
}

// name reads letters, digits and "_", not starting with a digit.
func (p *parser) name() string {
	end := p.pos
	for end < len(p.text) {
		c := p.text[end]
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (end == p.pos || c < '0' || c > '9') {
			break
		}
		end++
	}
	s := p.text[p.pos:end]
	p.pos = end
	return s
}

// word reads what is neither blank nor part of the grammar.
func (p *parser) word() string {
	n := strings.IndexFunc(p.rest(), func(r rune) bool {
		return strings.ContainsRune(" \t\r\n,()\"'", r) || document.Blank(r) || document.Typographic(r)
	})
	if n < 0 {
		n = len(p.rest())
	}
	s := p.rest()[:n]
	p.pos += n
	return s
}

// quoted reads a text in double quotes with its escapes.
func (p *parser) quoted() (string, *Error) {
	open := p.pos
	p.pos++
	var b strings.Builder
	for p.pos < len(p.text) {
		c := p.text[p.pos]
		switch {
		case c == '"':
			p.pos++
			return b.String(), nil
		case c != '\\':
			b.WriteByte(c)
			p.pos++
		case p.pos+1 == len(p.text):
			return "", p.fail("", "the text ends in the middle of an escape")
		default:
			r, ok := map[byte]byte{'"': '"', '\\': '\\', 'n': '\n', 't': '\t', 'r': '\r'}[p.text[p.pos+1]]
			if !ok {
				q, _ := utf8.DecodeRuneInString(p.text[p.pos+1:])
				return "", p.fail(`write \\ for a backslash; there are \" \\ \n \t \r`, `unknown escape \%c`, q)
			}
			b.WriteByte(r)
			p.pos += 2
		}
	}
	p.pos = open
	return "", p.fail(`close it with "`, "this quote is not closed")
}

// here names what stands at the place of an error.
func (p *parser) here() string {
	r, _ := utf8.DecodeRuneInString(p.rest())
	switch {
	case p.pos >= len(p.text):
		return "the end"
	case !unicode.IsPrint(r):
		return fmt.Sprintf("U+%04X", r)
	}
	n := min(strings.IndexFunc(p.rest()+" ", unicode.IsSpace), 20)
	for !utf8.ValidString(p.rest()[:n]) && n > 0 {
		n--
	}
	return fmt.Sprintf("%q", p.rest()[:n])
}

// unexpected prefers the causes that a user cannot see.
func (p *parser) unexpected(format string, args ...any) *Error {
	r, _ := utf8.DecodeRuneInString(p.rest())
	switch {
	case p.pos >= len(p.text):
	case document.Blank(r):
		return p.fail("replace it by a plain space", "non-ASCII blank (U+%04X)", r)
	case document.Typographic(r):
		return p.fail(`write a plain " instead`, "typographic quote %c (U+%04X)", r, r)
	case r == '\'':
		return p.fail(`write a double quote "`, "single quotes are no quotes in this language")
	}
	return p.fail("", format, args...)
}
