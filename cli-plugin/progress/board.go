package progress

import "time"

// entry is an item with its times.
type entry struct {
	Item
	began, ended time.Time
}

// elapsed is how long the item has taken; 0 while it waits to begin.
func (e entry) elapsed(now time.Time) time.Duration {
	if !e.ended.IsZero() {
		now = e.ended
	}
	return max(0, now.Sub(e.began))
}

// board is what is known of all items, in the order in which they came.
type board struct {
	title   string
	began   time.Time
	entries []*entry
	byID    map[string]*entry
}

func newBoard(title string, now time.Time) *board {
	return &board{title: title, began: now, byID: map[string]*entry{}}
}

// get returns an item as it is shown.
func (b *board) get(id string) (Item, bool) {
	if e := b.byID[id]; e != nil {
		return e.Item, true
	}
	return Item{}, false
}

// update records an item's state and reports whether anything changed that a
// user should see.
func (b *board) update(it Item, now time.Time) bool {
	e := b.byID[it.ID]
	if e == nil {
		e = &entry{Item: it, began: now}
		b.byID[it.ID] = e
		b.entries = append(b.entries, e)
	} else if e.Item == it {
		return false
	}
	switch {
	case it.State.over() && e.ended.IsZero():
		e.ended = now
	case !it.State.over():
		e.ended = time.Time{}
	}
	e.Item = it
	return true
}

// count returns how many items are done, and how many there are.
func (b *board) count() (done, all int) {
	for _, e := range b.entries {
		if e.State == Done {
			done++
		}
	}
	return done, len(b.entries)
}
