package dsl

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"regexp/syntax"
	"strings"

	"clocker.io/clocker/pkg/model"
)

// ErrNotConstant means that an expression depends on more than its own
// arguments. The [*NotConstantError] that wraps it names the function.
var ErrNotConstant = errors.New("not a constant expression")

// NotConstantError names the function that needs a running application.
type NotConstantError struct{ Func string }

// Error names the function.
func (e *NotConstantError) Error() string {
	return fmt.Sprintf("%s needs the running application", e.Func)
}

// Is makes errors.Is(err, ErrNotConstant) true.
func (e *NotConstantError) Is(target error) bool { return target == ErrNotConstant }

// Eval computes a constant expression: literal, formatString, urlEncode and
// regexReplacement, whose arguments are texts or constant expressions
// themselves. Any other function gives a [*NotConstantError].
func Eval(e *model.Expr) (string, error) {
	if e.Target != nil {
		root := e
		for root.Target != nil {
			root = root.Target
		}
		if root.Func == namespace {
			return "", &NotConstantError{namespace + "." + e.Func}
		}
		return "", &NotConstantError{e.Func}
	}
	switch e.Func {
	case "literal", "formatString", "urlEncode", "regexReplacement":
	case "":
		return "", errors.New("a list or a map is no text")
	default:
		return "", &NotConstantError{e.Func}
	}
	args := make([]string, len(e.Args))
	for i, a := range e.Args {
		text, literal := a.Literal()
		if !literal {
			var err error
			if text, err = Eval(a.Expr); err != nil {
				return "", err
			}
		}
		args[i] = text
	}
	if f := functions[e.Func]; len(args) < f.min || f.max >= 0 && len(args) > f.max {
		return "", fmt.Errorf("%s takes %s, not %d", e.Func, count(f), len(args))
	}
	switch e.Func {
	case "literal":
		return args[0], nil
	case "formatString":
		return Format(args[0], args[1:])
	case "urlEncode":
		return URLEncode(args[0]), nil
	}
	return RegexReplacement(args[0], args[1], args[2])
}

// URLEncode encodes a text as a form does: a blank becomes "+", and only
// letters, digits and -_.* stay as they are (java.net.URLEncoder).
func URLEncode(s string) string {
	return strings.NewReplacer("~", "%7E", "%2A", "*").Replace(url.QueryEscape(s))
}

// RegexReplacement replaces every match of a pattern. In the replacement $1
// is the first group and \x the character x itself (java.util.regex.Matcher).
// Patterns are RE2: look-around and back references are refused.
func RegexReplacement(source, pattern, replacement string) (string, error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		var se *syntax.Error
		if errors.As(err, &se) && (se.Code == syntax.ErrInvalidPerlOp || se.Code == syntax.ErrInvalidEscape) {
			return "", fmt.Errorf("pattern %q: look-around and back references are not supported", pattern)
		}
		return "", fmt.Errorf("pattern %q is no regular expression: %w", pattern, err)
	}
	template, err := expansion(replacement, re)
	if err != nil {
		return "", err
	}
	return re.ReplaceAllString(source, template), nil
}

// expansion turns Java's replacement text into Go's.
func expansion(replacement string, re *regexp.Regexp) (string, error) {
	var b strings.Builder
	for i := 0; i < len(replacement); i++ {
		switch c := replacement[i]; c {
		case '\\':
			if i++; i == len(replacement) {
				return "", errors.New(`the replacement ends in the middle of an escape: write \\ for a backslash`)
			}
			if replacement[i] == '$' {
				b.WriteString("$$")
			} else {
				b.WriteByte(replacement[i])
			}
		case '$':
			group, n, err := groupOf(replacement[i+1:], re)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&b, "${%s}", group)
			i += n
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), nil
}

// groupOf reads the group after a "$": as many digits as make the number of a
// group, or a name in braces.
func groupOf(s string, re *regexp.Regexp) (group string, n int, err error) {
	if strings.HasPrefix(s, "{") {
		end := strings.IndexByte(s, '}')
		if end < 0 || re.SubexpIndex(s[1:end]) < 0 {
			return "", 0, fmt.Errorf("the replacement names a group that the pattern has not: $%s", s)
		}
		return s[1:end], end + 1, nil
	}
	number := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		next := number*10 + int(s[n]-'0')
		if n > 0 && next > re.NumSubexp() {
			break
		}
		number = next
		n++
	}
	if n == 0 {
		return "", 0, errors.New(`"$" in the replacement is not followed by the number of a group: write \$ for a dollar`)
	}
	if number > re.NumSubexp() {
		return "", 0, fmt.Errorf("the replacement names group $%d, the pattern has %d", number, re.NumSubexp())
	}
	return s[:n], n, nil
}
