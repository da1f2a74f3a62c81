package progress

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// interval is the time between two frames.
const interval = 100 * time.Millisecond

// terminal draws the board again and again over itself.
type terminal struct {
	out    io.Writer
	colour bool
	size   func() (height, width int)
	clock  Clock
	stop   chan struct{}
	ended  chan struct{}

	// mu guards the following fields.
	mu    sync.Mutex
	board *board
	notes []string // not drawn yet
	drawn int      // lines of the last frame
	over  bool
}

func newTerminal(out io.Writer, title string, colour bool, size func() (int, int), clock Clock) *terminal {
	t := &terminal{
		out: out, colour: colour, size: size, clock: clock,
		stop: make(chan struct{}), ended: make(chan struct{}),
		board: newBoard(title, clock.Now()),
	}
	go t.run()
	return t
}

func (t *terminal) run() {
	defer close(t.ended)
	tick, stop := t.clock.Tick(interval)
	defer stop()
	for {
		select {
		case <-t.stop:
			return
		case <-tick:
			t.mu.Lock()
			t.draw(false)
			t.mu.Unlock()
		}
	}
}

func (t *terminal) Update(it Item) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.board.update(it, t.clock.Now())
}

func (t *terminal) Title(s string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.board.title = s
}

func (t *terminal) Note(s string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.notes = append(t.notes, s)
}

func (t *terminal) Close() {
	t.mu.Lock()
	if t.over {
		t.mu.Unlock()
		return
	}
	t.over = true
	close(t.stop)
	t.mu.Unlock()
	<-t.ended
	t.mu.Lock()
	defer t.mu.Unlock()
	t.draw(true)
}

// draw writes a frame over the last one, in a single write so that it does not
// flicker. The last frame shows every item, however many, and may scroll.
func (t *terminal) draw(last bool) {
	h, w := t.size()
	if w <= 0 {
		w = 80
	}
	f := frame{width: w, height: max(2, h-1), colour: t.colour, last: last, now: t.clock.Now()}
	if last || h <= 0 {
		f.height = 0
	}
	lines := f.render(t.board)
	if last && len(t.board.entries) == 0 {
		lines = nil // nothing happened
	}
	var b strings.Builder
	b.WriteString("\x1b[?25l") // hide the cursor
	if t.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", t.drawn) // up to the first line
	}
	for _, n := range t.notes {
		b.WriteString("\r" + n + "\x1b[K\r\n")
	}
	t.notes = nil
	for _, l := range lines {
		b.WriteString("\r" + l + "\x1b[K\r\n") // clear what was longer
	}
	b.WriteString("\x1b[J\x1b[?25h") // clear what is below, show the cursor
	_, _ = io.WriteString(t.out, b.String())
	t.drawn = len(lines)
}
