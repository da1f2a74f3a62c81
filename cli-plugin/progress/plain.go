package progress

import (
	"fmt"
	"io"
	"sync"
)

// plain writes one line for each change.
type plain struct {
	out   io.Writer
	clock Clock

	// mu guards the following fields.
	mu    sync.Mutex
	board *board
	begun bool // the title is written
}

func newPlain(out io.Writer, title string, clock Clock) *plain {
	return &plain{out: out, clock: clock, board: newBoard(title, clock.Now())}
}

// begin writes the title, once there is something to show below it.
func (p *plain) begin() {
	if !p.begun && p.board.title != "" {
		_, _ = fmt.Fprintln(p.out, p.board.title)
	}
	p.begun = true
}

func (p *plain) Update(it Item) {
	p.mu.Lock()
	defer p.mu.Unlock()
	was, known := p.board.get(it.ID)
	if !p.board.update(it, p.clock.Now()) {
		return
	}
	if was.State = it.State; known && was == it {
		return // the words are the same
	}
	p.begin()
	line := " " + it.Name
	if it.Where != "" {
		line += " (" + it.Where + ")"
	}
	line += ": " + it.Text
	if it.Detail != "" {
		line += ": " + oneLine(it.Detail)
	}
	_, _ = fmt.Fprintln(p.out, line)
}

func (p *plain) Title(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s != p.board.title {
		p.board.title, p.begun = s, false
		p.begin()
	}
}

func (p *plain) Note(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begin()
	_, _ = fmt.Fprintln(p.out, s)
}

func (p *plain) Close() {}
