package dsl

import (
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// widest bounds width and precision, so that a pattern of a few bytes cannot
// ask for a text of gigabytes.
const widest = 1000

// specifier is %[index$][flags][width][.precision]conversion; < as index
// repeats the argument before.
var specifier = regexp.MustCompile(`^%(?:(\d+)\$|(<))?([-#+ 0,(]*)(\d+)?(?:\.(\d+))?([a-zA-Z%])`)

// Format renders a pattern by the rules of java.util.Formatter: %s %S %d %x
// %X %o %c %b %f %e %n %%, argument numbers (%1$s), width, precision and the
// flags - 0 + and space. Too few arguments are an error, more are ignored.
func Format(pattern string, args []string) (string, error) {
	var b strings.Builder
	next, last := 0, -1
	for i := 0; i < len(pattern); {
		if pattern[i] != '%' {
			b.WriteByte(pattern[i])
			i++
			continue
		}
		m := specifier.FindStringSubmatch(pattern[i:])
		if m == nil {
			return "", fmt.Errorf("%q is no format: write %%%% for a percent sign", snippet(pattern[i:]))
		}
		i += len(m[0])
		f := field{text: m[0], flags: m[3], conversion: m[6]}
		var err error
		if f.width, f.precision, err = sizes(m[4], m[5]); err != nil {
			return "", fmt.Errorf("%s: %w", m[0], err)
		}
		arg := ""
		if f.conversion != "%" && f.conversion != "n" {
			switch {
			case m[1] != "":
				last, err = strconv.Atoi(m[1])
				last--
			case m[2] == "<":
			default:
				last, next = next, next+1
			}
			if err != nil || last < 0 || last >= len(args) {
				return "", fmt.Errorf("%s has no argument: the pattern %q has %d", m[0], pattern, len(args))
			}
			arg = args[last]
		}
		s, err := f.render(arg)
		if err != nil {
			return "", err
		}
		b.WriteString(s)
	}
	return b.String(), nil
}

func snippet(s string) string {
	n := min(len(s), 8)
	for n > 1 && !utf8.ValidString(s[:n]) {
		n--
	}
	return s[:n]
}

// sizes reads width and precision; -1 means not given.
func sizes(width, precision string) (w, p int, err error) {
	w, p = -1, -1
	for _, x := range []struct {
		text string
		to   *int
	}{{width, &w}, {precision, &p}} {
		if x.text == "" {
			continue
		}
		if *x.to, err = strconv.Atoi(x.text); err != nil || *x.to > widest {
			return 0, 0, fmt.Errorf("no more than %d characters", widest)
		}
	}
	return w, p, nil
}

type field struct {
	text, flags      string
	width, precision int
	conversion       string
}

func (f field) flag(c string) bool { return strings.Contains(f.flags, c) }

func (f field) render(arg string) (string, error) {
	if f.flag("#") || f.flag("(") || f.flag(",") {
		return "", fmt.Errorf("%s: the flags # , ( are not supported", f.text)
	}
	if f.flag("-") && f.width < 0 {
		return "", fmt.Errorf("%s: the flag - needs a width", f.text)
	}
	if strings.Contains("sSbBc", f.conversion) && strings.Trim(f.flags, "-") != "" {
		return "", fmt.Errorf("%s: only the flag - goes with %s", f.text, f.conversion)
	}
	switch f.conversion {
	case "%":
		return f.pad("%", false), nil
	case "n":
		return "\n", nil
	case "s", "S", "b", "B":
		if strings.ToLower(f.conversion) == "b" {
			arg = strconv.FormatBool(!strings.EqualFold(arg, "false"))
		}
		if r := []rune(arg); f.precision >= 0 && len(r) > f.precision {
			arg = string(r[:f.precision])
		}
		if f.conversion == "S" || f.conversion == "B" {
			arg = strings.ToUpper(arg)
		}
		return f.pad(arg, false), nil
	case "c":
		if utf8.RuneCountInString(arg) != 1 {
			return "", fmt.Errorf("%s: %q is not one character", f.text, arg)
		}
		return f.pad(arg, false), nil
	case "d", "x", "X", "o":
		return f.integer(arg)
	case "f", "e", "E":
		return f.float(arg)
	}
	return "", fmt.Errorf("%s: conversion %q is not supported", f.text, f.conversion)
}

func (f field) integer(arg string) (string, error) {
	if f.precision >= 0 {
		return "", fmt.Errorf("%s: a whole number has no precision", f.text)
	}
	n, ok := new(big.Int).SetString(arg, 10)
	if !ok {
		return "", fmt.Errorf("%s: %q is no whole number", f.text, arg)
	}
	if n.Sign() < 0 && f.conversion != "d" {
		return "", fmt.Errorf("%s: %s is negative", f.text, arg)
	}
	s := n.Text(map[string]int{"d": 10, "x": 16, "X": 16, "o": 8}[f.conversion])
	if f.conversion == "X" {
		s = strings.ToUpper(s)
	}
	return f.sign(s)
}

func (f field) float(arg string) (string, error) {
	x, err := strconv.ParseFloat(arg, 64)
	if err != nil {
		return "", fmt.Errorf("%s: %q is no number", f.text, arg)
	}
	p := f.precision
	if p < 0 {
		p = 6
	}
	return f.sign(strconv.FormatFloat(x, f.conversion[0], p, 64))
}

// sign adds what the flags + and space ask for, then the padding.
func (f field) sign(s string) (string, error) {
	switch {
	case f.flag("+") && f.flag(" "), f.flag("-") && f.flag("0"):
		return "", fmt.Errorf("%s: these flags exclude each other", f.text)
	case f.flag("0") && f.width < 0:
		return "", errors.New(f.text + ": the flag 0 needs a width")
	case strings.HasPrefix(s, "-"):
	case f.flag("+"):
		s = "+" + s
	case f.flag(" "):
		s = " " + s
	}
	return f.pad(s, f.flag("0")), nil
}

func (f field) pad(s string, zero bool) string {
	missing := f.width - utf8.RuneCountInString(s)
	switch {
	case missing <= 0:
		return s
	case f.flag("-"):
		return s + strings.Repeat(" ", missing)
	case zero && s != "" && strings.ContainsRune("+- ", rune(s[0])):
		return s[:1] + strings.Repeat("0", missing) + s[1:]
	case zero:
		return strings.Repeat("0", missing) + s
	}
	return strings.Repeat(" ", missing) + s
}
