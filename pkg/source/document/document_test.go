package document_test

import (
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/source/document"
)

// TestParseNamesTheLine holds what a user is told about text that is no YAML.
func TestParseNamesTheLine(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"a: b\n\tc: d\n", "f.yaml:2:1: a tab indents this line (YAML is indented by spaces only)"},
		{"a:\n  b: 1\n  \tc: d\n", "f.yaml:3:3: a tab indents this line (YAML is indented by spaces only)"},
		{"a: [1,2\nb: c\n", "f.yaml:2: not YAML: did not find expected ',' or ']'"},
		{"- a\nb: c\n", "f.yaml:2: not YAML: did not find expected '-' indicator"},
		{"a: 1\nb: c: d\n", `f.yaml:2: not YAML: mapping values are not allowed in this context (look for a key that is indented too far, or quote a value that holds ": ")`},
		{"a: \"x\nb: 1\n", "not YAML: found unexpected end of stream (a quote or a bracket is not closed)"},
		{"a: @x\n", "f.yaml:1: not YAML: found character that cannot start any token (quote a value"},
		{"a: 1\nx: *nope\n", "f.yaml:2: not YAML: unknown anchor 'nope' referenced (define it with & before it is used)"},
		{"a: 1\nid:\u2002x\nb: c\n", "f.yaml:2:4: non-ASCII blank (U+2002) at line 2 (replace it by a plain space)"},
		{"a: 1\na: 2\n", `f.yaml:2:1: a: key "a" is given twice; the other is on line 1 (keep one of them)`},
		{"b:\n- {a: 1, a: 2}\n", `f.yaml:2:10: b[0].a: key "a" is given twice`},
		{"[a]: 1\n", "f.yaml:1:1: a key of a map must be a text"},
		{"a: \xff\n", "f.yaml:1: the file is not text in UTF-8 (save it as UTF-8)"},
		{"a: 1\n\x00\n", "f.yaml:2: the file holds a zero byte"},
		{"a: 1\nb: x\u2028y\n", "f.yaml:2:5: a line break that editors do not show (U+2028) (replace it by a plain new line)"},
		{"a: 1\rb: 2\n", "f.yaml:1:5: a line break that editors do not show (U+000D)"},
		{"a: 1\r\nb: c: d\r\n", "f.yaml:2: not YAML"},
		{strings.Repeat("a", document.MaxSize+1), "f.yaml: the file is larger than 4 MiB"},
	} {
		docs, problems := document.Parse("f.yaml", []byte(c.text))
		assert.Equal(t, len(docs), 0)
		got := problems.Error()
		if !strings.Contains(got, c.want) {
			t.Errorf("Parse(%.40q): got %q, want %q", c.text, got, c.want)
		}
	}
}

func TestParseReadsDocuments(t *testing.T) {
	docs, problems := document.Parse("f.yaml", []byte("\ufeffa: 1 # \u2002 in a comment\n---\n# nothing\n---\nb: é\n"))
	assert.Equal(t, len(problems), 0, "%v", problems)
	assert.Equal(t, len(docs), 3)
	assert.Equal(t, document.Get(docs[0].Root, "a").Value, "1")
	assert.Assert(t, document.Null(docs[1].Root))
	assert.Equal(t, docs[2].At(document.Get(docs[2].Root, "b")).String(), "f.yaml:5:4")
}

func TestCharacters(t *testing.T) {
	docs, problems := document.Parse("f.yaml", []byte(strings.Join([]string{
		`a: “smart”`,
		`b: Tom’s "app" is fine`,
		"c: x\u00a0y",
		"d: \"x\u00a0y “z” is quoted\"",
		"e: '$brooklyn:entity(“x”)'",
		"f: [x, y\u2003]",
		"g: |\n  a\u00a0b",
	}, "\n")))
	assert.Equal(t, len(problems), 0, "%v", problems)
	assert.Equal(t, docs[0].Characters().Error(), strings.Join([]string{
		`f.yaml:1:4: a: typographic quote “ (U+201C) (write a plain " instead)`,
		`f.yaml:3:5: c: non-ASCII blank (U+00A0) at line 3 (replace it by a plain space)`,
		`f.yaml:5:22: e: typographic quote “ (U+201C) (write a plain " instead)`,
		`f.yaml:6:9: f[1]: non-ASCII blank (U+2003) at line 6 (replace it by a plain space)`,
	}, "\n"))
}

func TestGetLooksThroughMerges(t *testing.T) {
	docs, problems := document.Parse("f.yaml", []byte("x: &x {a: 1, b: 2}\ny: &y {c: 3}\none: {<<: *x, a: 9}\nmany: {<<: [*x, *y]}\n"))
	assert.Equal(t, len(problems), 0, "%v", problems)
	root := docs[0].Root
	for _, c := range []struct{ of, key, want string }{{"one", "a", "9"}, {"one", "b", "2"}, {"many", "c", "3"}, {"many", "a", "1"}} {
		n := document.Get(document.Get(root, c.of), c.key)
		assert.Assert(t, n != nil, "%v", c)
		assert.Equal(t, n.Value, c.want)
	}
	assert.Assert(t, document.Get(document.Get(root, "one"), "c") == nil)
}

// FuzzParse holds that any bytes give documents or problems, each problem in
// the file.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"a: [1,2\nb: c\n", "a: b\n\tc", "a: &a [*a]", "? a\n: b", "<<: {a: 1}", "a: “x”\u2002", "--- a\n--- |\n x", "\xff\xfea"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		docs, problems := document.Parse("f.yaml", content)
		lines := strings.Count(string(content), "\n") + 1
		check := func(line int) {
			if line < 0 || line > lines+1 {
				t.Fatalf("line %d of %d", line, lines)
			}
		}
		for _, p := range problems {
			check(p.Position.Line)
		}
		for _, d := range docs {
			for _, p := range d.Characters() {
				check(p.Position.Line)
			}
			document.Get(d.Root, "services")
		}
	})
}
