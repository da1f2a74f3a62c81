package logview

import (
	"bytes"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// frames packs pieces of output as an engine does: "1text" is standard output,
// "2text" standard error.
func frames(pieces ...string) *bytes.Buffer {
	var b bytes.Buffer
	for _, p := range pieces {
		b.Write([]byte{p[0] - '0', 0, 0, 0, 0, 0, 0, byte(len(p) - 1)})
		b.WriteString(p[1:])
	}
	return &b
}

func TestLinesAreWholeAndPrefixed(t *testing.T) {
	var out, errOut bytes.Buffer
	v := New(&out, &errOut, []string{"a-redis-1", "a-web-10"}, Options{})
	assert.NilError(t, v.Copy("a-web-10", frames("1one\ntw", "2warn", "1o\n\nthree", "2ing\n")))
	assert.NilError(t, v.Copy("a-redis-1", frames("1ready\n")))
	assert.Equal(t, out.String(), strings.Join([]string{
		"a-web-10   | one", "a-web-10   | two", "a-web-10   | ", "a-web-10   | three", "a-redis-1  | ready", "",
	}, "\n"))
	assert.Equal(t, errOut.String(), "a-web-10   | warning\n")
}

func TestColoursTellReplicasApart(t *testing.T) {
	var out bytes.Buffer
	v := New(&out, &out, []string{"a", "b"}, Options{Colour: true})
	for _, n := range []string{"a", "b", "a"} {
		assert.NilError(t, v.Copy(n, frames("1x\n")))
	}
	lines := strings.Split(out.String(), "\n")
	assert.Equal(t, lines[0], "\x1b[36ma  | \x1b[0mx")
	assert.Equal(t, lines[2], lines[0])
	assert.Assert(t, lines[1] != strings.Replace(lines[0], "a", "b", 1))
}

func TestWithoutPrefixTheTextIsAsItWas(t *testing.T) {
	var out bytes.Buffer
	v := New(&out, &out, []string{"a"}, Options{NoPrefix: true, Colour: true})
	assert.NilError(t, v.Copy("a", frames("1x\ny")))
	assert.Equal(t, out.String(), "x\ny\n")
}

func TestABrokenLogIsNamed(t *testing.T) {
	var out bytes.Buffer
	v := New(&out, &out, []string{"a-web-1"}, Options{})
	err := v.Copy("a-web-1", strings.NewReader("\x09not a log of any kind"))
	assert.ErrorContains(t, err, "read log of a-web-1: ")
}
