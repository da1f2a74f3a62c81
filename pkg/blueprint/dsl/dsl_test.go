package dsl_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"clocker.io/clocker/pkg/blueprint/dsl"
	"clocker.io/clocker/pkg/model"
)

// TestParse holds the vectors of spec/clocker.md §11 and the forms of §5.6.
func TestParse(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`$brooklyn:formatString("a%s", component("x").attributeWhenReady("y"))`, `formatString("a%s", component("x").attributeWhenReady("y"))`},
		{`$brooklyn:entity("x").config("k")`, `entity("x").config("k")`},
		{`$brooklyn:literal("$brooklyn:x")`, `literal("$brooklyn:x")`},
		{`$brooklyn:literal("\"q\\")`, `literal("\"q\\")`},
		{`$brooklyn:literal("a\nb\tc")`, `literal("a\nb\tc")`},
		{`$brooklyn:self`, `self()`},
		{`$brooklyn:parent.parent().config(port)`, `parent().parent().config("port")`},
		{`$brooklyn:component("x").entityId`, `component("x").entityId()`},
		{`$brooklyn:formatString("%d", 8080)`, `formatString("%d", "8080")`},
		{`$brooklyn:sensor(org.apache.Web, "webapp.reqs")`, `sensor("org.apache.Web", "webapp.reqs")`},
		{`$brooklyn:formatString("%s", $brooklyn:self)`, `formatString("%s", self())`},
		{`$brooklyn:formatString("%s", $brooklyn:component("x").attributeWhenReady("y"))`, `formatString("%s", component("x").attributeWhenReady("y"))`},
		{"$brooklyn:formatString(\n  \"http://%s/\" ,\n\tcomponent( \"x\" ) . config(\"k\")\n)\n", `formatString("http://%s/", component("x").config("k"))`},
		{`$brooklyn:function.regexReplacement("a", "b")`, `function().regexReplacement("a", "b")`},
		{`$brooklyn:formatString("%s", function.regexReplacement("a", "b"))`, `formatString("%s", function().regexReplacement("a", "b"))`},
		{`$brooklyn:component("sibling", "x")`, `component("sibling", "x")`},
		{`$brooklyn:external("vault", "db.password")`, `external("vault", "db.password")`},
		{`$brooklyn:formatString("jdbc:%s%s?user=%s\\&password=%s", component("db").attributeWhenReady("datastore.url"), "visitors", "brooklyn", "br00k11n")`,
			`formatString("jdbc:%s%s?user=%s\\&password=%s", component("db").attributeWhenReady("datastore.url"), "visitors", "brooklyn", "br00k11n")`},
	} {
		e, err := dsl.Parse(c.text)
		if err != nil {
			t.Errorf("Parse(%q): %v", c.text, err)
			continue
		}
		if got := e.String(); got != c.want {
			t.Errorf("Parse(%q) = %s, want %s", c.text, got, c.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct {
		text, want string
		offset     int
	}{
		{`$brooklyn:foo("x")`, `unknown function "foo"`, 10},
		{`$brooklyn:componet("x")`, `did you mean "component"?`, 10},
		{`$brooklyn:attributewhenready("x")`, `did you mean "attributeWhenReady"?`, 10},
		{`$brooklyn:entity("x") tail`, `text after the expression: "tail"`, 22},
		{`$brooklyn:`, `expected the name of a function, found the end`, 10},
		{`$brooklyn:entity(`, `expected an argument, found the end`, 17},
		{`$brooklyn:entity("x"`, `this parenthesis is not closed`, 16},
		{`$brooklyn:entity("x`, `this quote is not closed`, 17},
		{`$brooklyn:entity("x\d")`, `unknown escape \d`, 19},
		{`$brooklyn:entity("x\`, `the text ends in the middle of an escape`, 19},
		{`$brooklyn:entity()`, `entity takes 1 argument, not 0`, 10},
		{`$brooklyn:entity("x", "y")`, `entity takes 1 argument, not 2`, 10},
		{`$brooklyn:formatString()`, `formatString takes at least 1 argument, not 0`, 10},
		{`$brooklyn:component("a","b","c")`, `component takes 1 to 2 arguments, not 3`, 10},
		{`$brooklyn:component("sibbling", "x")`, `did you mean "sibling"?`, 10},
		{`$brooklyn:entity('x')`, `single quotes are no quotes`, 17},
		{"$brooklyn:entity(“x”)", `typographic quote “ (U+201C)`, 17},
		{"$brooklyn:entity(\u2002\"x\")", `non-ASCII blank (U+2002)`, 17},
		{`$brooklyn:entity("x").formatString("y")`, `formatString cannot follow a dot`, 22},
		{`$brooklyn:formatString("%s", self.config("k"))`, `"self.config" is no function`, 29},
		{`$brooklyn:entity("x" "y")`, `expected "," or ")", found "\"y\")"`, 21},
		{`$brooklyn:entity("x",)`, `expected an argument`, 21},
		{`$brooklyn:entity("x").`, `expected the name of a function`, 22},
		{`$brooklyn:location("0")`, `belongs to later versions of Brooklyn`, 10},
		{`$brooklyn:function`, `function is no value by itself`, 18},
		{strings.Repeat("self(", 200), `nested more than 100 deep`, 504},
	} {
		_, err := dsl.Parse(c.text)
		var e *dsl.Error
		if !errors.As(err, &e) {
			t.Errorf("Parse(%q): error %v, want one of type *dsl.Error", c.text, err)
			continue
		}
		if !strings.Contains(e.Error(), c.want) || e.Offset != c.offset {
			t.Errorf("Parse(%q): offset %d: %v; want offset %d: %s", c.text, e.Offset, e, c.offset, c.want)
		}
	}
}

func TestCall(t *testing.T) {
	for _, c := range []struct {
		name string
		args []model.Value
		want string
	}{
		{"sensor", []model.Value{model.Text("T"), model.Text("n")}, `sensor("T", "n")`},
		{"component", []model.Value{model.Text("x")}, `component("x")`},
		{`component("x").config`, []model.Value{model.Text("k")}, `component("x").config("k")`},
		{"function.regexReplacement", []model.Value{model.Text("a"), model.Text("b")}, `function().regexReplacement("a", "b")`},
		{"self", nil, "self()"},
	} {
		e, err := dsl.Call(c.name, c.args)
		if err != nil {
			t.Errorf("Call(%q): %v", c.name, err)
			continue
		}
		if e.String() != c.want {
			t.Errorf("Call(%q) = %s, want %s", c.name, e, c.want)
		}
	}
	for name, want := range map[string]string{
		"foo":            `unknown function "foo"`,
		`component("x")`: "arguments twice",
		"component x":    "text after the expression",
		"":               "expected the name of a function",
	} {
		if _, err := dsl.Call(name, []model.Value{model.Text("y")}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Call(%q): error %v, want %q", name, err, want)
		}
	}
}

func TestEval(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`literal("$brooklyn:x")`, "$brooklyn:x"},
		{`urlEncode("a b&c")`, "a+b%26c"},
		{`urlEncode("~*-_.é")`, "%7E*-_.%C3%A9"},
		{`regexReplacement("tcp://h:1","tcp","http")`, "http://h:1"},
		{`regexReplacement("a1b22","[a-z](\\d+)","<$1>")`, "<1><22>"},
		{`regexReplacement("ab","(a)(b)","$2$1\\$$10")`, "ba$a0"},
		{`regexReplacement("ab","(?P<x>a)","${x}${x}")`, "aab"},
		{`formatString("%1$s-%1$s","z")`, "z-z"},
		{`formatString("%s and %S", "a", "b")`, "a and B"},
		{`formatString("%s", formatString("%05d|%-4d|%+d", 42, 7, 3))`, "00042|7   |+3"},
		{`formatString("%x %X %o %c %b%%%n", 255, 255, 8, z, true)`, "ff FF 10 z true%\n"},
		{`formatString("%.2f %8.3f %e", 1.005, 2, 1)`, "1.00    2.000 1.000000e+00"},
		{`formatString("%2$s%1$s%<s%s", a, b)`, "baaa"},
		{`formatString("%s", a, b, c)`, "a"},
		{`formatString("%.1s|%4s|%-4s|", "abc", "é", "é")`, "a|   é|é   |"},
		{`formatString("%05d % d", -42, 7)`, "-0042  7"},
		{`formatString("%d", 123456789012345678901234567890)`, "123456789012345678901234567890"},
		{`formatString("jdbc:%s%s?user=%s\\&password=%s", "u/", "visitors", "brooklyn", "br00k11n")`, `jdbc:u/visitors?user=brooklyn\&password=br00k11n`},
	} {
		e, err := dsl.Parse(c.text)
		if err != nil {
			t.Errorf("Parse(%q): %v", c.text, err)
			continue
		}
		if got, err := dsl.Eval(e); err != nil || got != c.want {
			t.Errorf("Eval(%s) = %q, %v; want %q", c.text, got, err, c.want)
		}
	}
}

func TestEvalRefuses(t *testing.T) {
	for _, c := range []struct {
		text, want string
		constant   bool
	}{
		{`component("x").attributeWhenReady("y")`, "attributeWhenReady needs", false},
		{`formatString("%s", config("y"))`, "config needs", false},
		{`self`, "self needs", false},
		{`function.regexReplacement("a","b")`, "function.regexReplacement needs", false},
		{`external("a","b")`, "external needs", false},
		{`formatString("%s %s", a)`, "has no argument", true},
		{`formatString("%3$s", a)`, "has no argument", true},
		{`formatString("%d", "x")`, "is no whole number", true},
		{`formatString("%x", -1)`, "is negative", true},
		{`formatString("%f", "x")`, "is no number", true},
		{`formatString("100%")`, "is no format", true},
		{`formatString("%q", a)`, "not supported", true},
		{`formatString("%99999d", 1)`, "no more than", true},
		{`formatString("%0s", a)`, "only the flag -", true},
		{`formatString("%c", ab)`, "not one character", true},
		{`regexReplacement("a","(","b")`, "no regular expression", true},
		{`regexReplacement("a","(?=a)","b")`, "look-around", true},
		{`regexReplacement("a","a","$1")`, "group $1", true},
		{`regexReplacement("a","a","$")`, "not followed", true},
		{`regexReplacement("a","a","\\")`, "middle of an escape", true},
		{`regexReplacement("a","a","${x}")`, "group that the pattern has not", true},
	} {
		e, err := dsl.Parse(c.text)
		if err != nil {
			t.Errorf("Parse(%q): %v", c.text, err)
			continue
		}
		_, err = dsl.Eval(e)
		if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, dsl.ErrNotConstant) == c.constant {
			t.Errorf("Eval(%s): error %v, want %q (constant: %v)", c.text, err, c.want, c.constant)
		}
	}
}

func TestIs(t *testing.T) {
	for text, want := range map[string]bool{"$brooklyn:x": true, "  $brooklyn:x": true, "x $brooklyn:x": false, "$brooklyn": false, "": false} {
		if dsl.Is(text) != want {
			t.Errorf("Is(%q) = %v", text, !want)
		}
	}
}

// FuzzParse holds that whatever can be parsed means the same when it is
// rendered, parsed again, or stored as JSON, and that errors point into the
// text.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`$brooklyn:formatString("a%s", component("x").attributeWhenReady("y"))`, `self`, `function.regexReplacement(a, "b")`,
		`formatString("%1$s %<5.2f\n", 1, $brooklyn:self)`, "entity(“x”)", `entity("x") tail`, `literal("\"\\\n\t\r")`, `regexReplacement("aa", "(a)", "$1\\$")`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := dsl.Parse(s)
		if err != nil {
			var de *dsl.Error
			if !errors.As(err, &de) || de.Offset < 0 || de.Offset > len(s) || de.Text == "" {
				t.Fatalf("error %#v of %q", err, s)
			}
			return
		}
		again, err := dsl.Parse(e.String())
		if err != nil || !reflect.DeepEqual(again, e) {
			t.Fatalf("%q renders as %q, which reads as %v, %v", s, e, again, err)
		}
		if _, err := json.Marshal(e); err != nil {
			t.Fatal(err)
		}
		_, _ = dsl.Eval(e)
	})
}

// FuzzFormat holds that no pattern makes the formatter fail badly or grow
// without bound.
func FuzzFormat(f *testing.F) {
	f.Add("%1$s %S %05d %-4x %.2f %n%%", "1")
	f.Add("%<s", "a")
	f.Fuzz(func(t *testing.T, pattern, arg string) {
		s, err := dsl.Format(pattern, []string{arg, arg})
		if err == nil && len(s) > (len(pattern)+1)*(len(arg)*4+1100) {
			t.Fatalf("%d bytes from %q", len(s), pattern)
		}
	})
}
