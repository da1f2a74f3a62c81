package progress

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mattn/go-runewidth"
)

// The control sequences a terminal is drawn with (ECMA-48).
const (
	green, red, yellow, blue = "\x1b[32m", "\x1b[31m", "\x1b[33m", "\x1b[34m"
	reset                    = "\x1b[0m"
)

// spinner turns once a second at ten frames a second.
var spinner = []string{"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"}

// frame says how a board is drawn.
type frame struct {
	// width is the terminal's, in columns. height is the most lines that may
	// be drawn; 0 means any number.
	width, height int
	colour        bool
	// last means that nothing moves any more.
	last bool
	now  time.Time
}

// render draws a board: a headline, then a line for each item. Where there are
// more items than lines, those that are done are counted instead of shown,
// then those that wait.
func (f frame) render(b *board) []string {
	shown, hidden := f.choose(b.entries)
	name, where := columns(shown)
	lines := []string{f.headline(b)}
	for _, e := range shown {
		lines = append(lines, f.line(e, name, where))
	}
	if hidden > 0 {
		lines = append(lines, f.cut(fmt.Sprintf("   … and %d more", hidden)))
	}
	return lines
}

func (f frame) choose(all []*entry) (shown []*entry, hidden int) {
	room := len(all)
	if f.height > 0 {
		room = max(1, f.height-1) // the headline
	}
	if len(all) <= room {
		return all, 0
	}
	room = max(1, room-1) // the count of the hidden
	drop := map[*entry]bool{}
	for _, s := range []State{Done, Undone, Waiting, Working, Failed} {
		of := slices.Clone(all)
		if !s.over() { // what comes first in the list goes on first
			slices.Reverse(of)
		}
		for _, e := range of {
			if len(all)-len(drop) > room && e.State == s {
				drop[e] = true
			}
		}
	}
	for _, e := range all {
		if !drop[e] {
			shown = append(shown, e)
		}
	}
	return shown, len(drop)
}

func columns(es []*entry) (name, where int) {
	for _, e := range es {
		name = max(name, runewidth.StringWidth(e.Name))
		where = max(where, runewidth.StringWidth(e.Where))
	}
	return name, where
}

func (f frame) headline(b *board) string {
	left := "[+] " + b.title
	if done, all := b.count(); all > 0 {
		left += fmt.Sprintf(" %d/%d", done, all)
	}
	return f.paint(blue, f.align(left, seconds(f.now.Sub(b.began))))
}

func (f frame) line(e *entry, name, where int) string {
	sign, colour := "✔", green
	switch e.State {
	case Failed:
		sign, colour = "✘", red
	case Waiting:
		sign, colour = "○", yellow
	case Undone:
		sign, colour = "-", yellow
	case Working:
		sign, colour = spinner[int(f.now.UnixMilli()/100)%len(spinner)], blue
		if f.last {
			sign = "…"
		}
	}
	head := " " + sign + " "
	body := runewidth.FillRight(e.Name, name) + "  "
	if where > 0 {
		body += runewidth.FillRight(e.Where, where) + "  "
	}
	state := e.Text
	if e.Detail != "" {
		state += ": " + oneLine(e.Detail)
	}
	timer := seconds(e.elapsed(f.now))
	room := f.width - runewidth.StringWidth(head+body) - len(timer) - 2
	if room < 8 { // a narrow terminal has no room for the times
		plain := f.cut(head + body + state)
		return f.paint(colour, plain)
	}
	state = runewidth.FillRight(runewidth.Truncate(state, room, "…"), room)
	return f.paint(colour, head) + body + f.paint(colour, state) + "  " + f.paint(blue, timer)
}

// align puts right at the end of a line that starts with left.
func (f frame) align(left, right string) string {
	gap := f.width - runewidth.StringWidth(left) - runewidth.StringWidth(right)
	if gap < 1 {
		return f.cut(left)
	}
	return left + strings.Repeat(" ", gap) + right
}

func (f frame) cut(s string) string { return runewidth.Truncate(s, max(1, f.width), "…") }

func (f frame) paint(colour, s string) string {
	if !f.colour {
		return s
	}
	return colour + s + reset
}

// seconds writes a duration as the user reads it: "0.4s", "1m05s".
func seconds(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	d = d.Round(time.Second)
	return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
