package ipam

// list is a doubly linked list of slots: every operation takes constant time.
type list struct {
	head, tail *slot
	n          int
}

func (l *list) push(sl *slot) {
	sl.on, sl.prev, sl.next = l, l.tail, nil
	if l.tail != nil {
		l.tail.next = sl
	} else {
		l.head = sl
	}
	l.tail = sl
	l.n++
}

func (sl *slot) unlink() {
	l := sl.on
	if l == nil {
		return
	}
	if sl.prev != nil {
		sl.prev.next = sl.next
	} else {
		l.head = sl.next
	}
	if sl.next != nil {
		sl.next.prev = sl.prev
	} else {
		l.tail = sl.prev
	}
	l.n--
	sl.on, sl.prev, sl.next = nil, nil, nil
}
