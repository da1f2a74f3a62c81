// Package logview merges the logs of several containers into one stream of
// lines, each with the name of the container it comes from. It never splits a
// line and never mixes two.
//
// Design page: docs/design/cli.md.
package logview

import (
	"bytes"
	"fmt"
	"io"
	"sync"

	"github.com/mattn/go-runewidth"
	"github.com/moby/moby/api/pkg/stdcopy"
)

// colours tell containers apart on a terminal, in the order of use (ECMA-48).
var colours = []string{"36", "33", "32", "35", "34", "96", "93", "92", "95", "94"}

// View writes merged lines. Copy may be called by several goroutines.
type View struct {
	width  int
	prefix bool
	colour bool

	// mu guards the following fields.
	mu       sync.Mutex
	out, err io.Writer
	used     map[string]int // colour by name
}

// Options say how lines look.
type Options struct {
	// NoPrefix leaves the names away, Colour paints them.
	NoPrefix, Colour bool
}

// New returns a view of the containers of the given names. Lines of their
// standard output go to out, those of their standard error to err.
func New(out, err io.Writer, names []string, o Options) *View {
	v := &View{out: out, err: err, prefix: !o.NoPrefix, colour: o.Colour, used: map[string]int{}}
	for i, n := range names {
		v.width = max(v.width, runewidth.StringWidth(n))
		v.used[n] = i % len(colours)
	}
	return v
}

// Copy writes the lines of one container's log, in the engine's multiplexed
// form, until it ends. A last line without an end gets one.
func (v *View) Copy(name string, log io.Reader) error {
	out := &lines{v: v, w: v.out, name: name}
	err := &lines{v: v, w: v.err, name: name}
	_, cerr := stdcopy.StdCopy(out, err, log)
	if cerr != nil {
		cerr = fmt.Errorf("read log of %s: %w", name, cerr)
	}
	for _, l := range []*lines{out, err} {
		if e := l.flush(); cerr == nil {
			cerr = e
		}
	}
	return cerr
}

// lines passes whole lines on.
type lines struct {
	v    *View
	w    io.Writer
	name string
	rest []byte
}

func (l *lines) Write(b []byte) (int, error) {
	l.rest = append(l.rest, b...)
	end := bytes.LastIndexByte(l.rest, '\n')
	if end < 0 {
		return len(b), nil
	}
	if err := l.v.write(l.w, l.name, l.rest[:end+1]); err != nil {
		return 0, err
	}
	l.rest = append(l.rest[:0], l.rest[end+1:]...)
	return len(b), nil
}

func (l *lines) flush() error {
	if len(l.rest) == 0 {
		return nil
	}
	return l.v.write(l.w, l.name, append(l.rest, '\n'))
}

// write writes whole lines, each behind its prefix, at once.
func (v *View) write(w io.Writer, name string, text []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.prefix {
		_, err := w.Write(text)
		return err
	}
	var b bytes.Buffer
	head := runewidth.FillRight(name, v.width) + "  | "
	if v.colour {
		head = "\x1b[" + colours[v.used[name]] + "m" + head + "\x1b[0m"
	}
	for line := range bytes.Lines(text) {
		b.WriteString(head)
		b.Write(line)
	}
	_, err := w.Write(b.Bytes())
	return err
}
