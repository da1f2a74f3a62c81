// Package progress shows how something that takes a while is getting on: lines
// that change in place on a terminal, one plain line per change elsewhere. It
// only draws; what is going on is told to it.
//
// Design page: docs/design/cli.md.
package progress

import (
	"os"
	"time"

	"github.com/docker/cli/cli/streams"
)

// State is how an item is getting on.
type State int

// The states of an item. What is Done, Failed or Undone is over.
const (
	Working State = iota
	Waiting
	Done
	Failed
	// Undone was begun and taken back, or left.
	Undone
)

func (s State) over() bool { return s == Done || s == Failed || s == Undone }

// Item is one thing whose progress is shown.
type Item struct {
	// ID tells items apart; it is not shown.
	ID string
	// Name is the first column, Where the second; Where may be empty.
	Name, Where string
	State       State
	// Text says what is happening, such as "Starting".
	Text string
	// Detail says more about Text: an error, what is waited for.
	Detail string
}

// Display shows items. It may be used by several goroutines.
type Display interface {
	// Update shows an item's new state.
	Update(Item)
	// Title changes the headline.
	Title(string)
	// Note shows a line that stays, above the items.
	Note(string)
	// Close shows the last state and gives the terminal back. Nothing may be
	// called after it but Close.
	Close()
}

// Clock tells the time and gives a channel that fires every interval until
// stop is called.
type Clock struct {
	Now  func() time.Time
	Tick func(time.Duration) (c <-chan time.Time, stop func())
}

// SystemClock is the machine's clock.
func SystemClock() Clock {
	return Clock{Now: time.Now, Tick: func(d time.Duration) (<-chan time.Time, func()) {
		t := time.NewTicker(d)
		return t.C, t.Stop
	}}
}

// New returns the display that suits where out goes: none when quiet, lines
// that change in place on a terminal that can, plain lines elsewhere.
func New(out *streams.Out, title string, quiet bool, clock Clock) Display {
	switch {
	case quiet:
		return silent{}
	case out.IsTerminal() && os.Getenv("TERM") != "dumb":
		size := func() (int, int) {
			h, w := out.GetTtySize()
			return int(h), int(w)
		}
		return newTerminal(out, title, os.Getenv("NO_COLOR") == "", size, clock)
	}
	return newPlain(out, title, clock)
}

type silent struct{}

func (silent) Update(Item)  {}
func (silent) Title(string) {}
func (silent) Note(string)  {}
func (silent) Close()       {}

var (
	_ Display = silent{}
	_ Display = (*terminal)(nil)
	_ Display = (*plain)(nil)
)
