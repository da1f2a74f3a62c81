package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// What [Share] answers when it cannot give an address.
var (
	// ErrNotOwned means that the address is in no block of this host.
	ErrNotOwned = errors.New("not in a block of this host")
	// ErrInUse means that somebody has the address.
	ErrInUse = errors.New("in use")
	// ErrReserved means that nobody gets the address.
	ErrReserved = errors.New("reserved")
	// ErrWithdrawn means that the address is in a block that this host may
	// hand nothing out of any more.
	ErrWithdrawn = errors.New("in a block that was withdrawn from this host")
	// ErrLent means that another host has the address.
	ErrLent = fmt.Errorf("%w by another host", ErrInUse)
)

// Share is one host's part of a network: the blocks it owns and which of
// their addresses are held. Every operation takes constant time, however full
// the blocks are. It is not safe for concurrent use.
//
// Addresses are given longest-free first, those never used before all others,
// and one that was just released is given out again only after the cooldown,
// so that what remembers its former holder (ARP, connection tracking, DNS
// caches) has time to forget.
type Share struct {
	layout   *Layout
	cooldown time.Duration
	blocks   map[int]*block
	// fresh addresses were never held; used ones are in the order of their
	// release.
	fresh, used list
	// last is where each name's last address is, held or free.
	last map[string]*slot
	held int
}

// block is one owned block.
type block struct {
	index  int
	prefix netip.Prefix
	slots  []slot
	// held counts those held and lent.
	held      int
	withdrawn bool
	// idle is since when nothing is held.
	idle time.Time
}

type state uint8

const (
	slotFree state = iota
	slotHeld
	slotReserved
	// slotLent is held by another host: see Lend.
	slotLent
)

// slot is one address.
type slot struct {
	block      *block
	addr       netip.Addr
	state      state
	name       string
	at         time.Time // of the last change
	on         *list     // the list it is on; nil when not free
	prev, next *slot
}

// Held is an address that somebody has.
type Held struct {
	Addr netip.Addr
	// Name is the holder's name where it is known.
	Name  string
	Since time.Time
}

// NewShare returns a share without blocks.
func NewShare(l *Layout, cooldown time.Duration) *Share {
	return &Share{layout: l, cooldown: cooldown, blocks: map[int]*block{}, last: map[string]*slot{}}
}

// Layout is how the network is cut into blocks.
func (s *Share) Layout() *Layout { return s.layout }

// AddBlock makes the share own block i; owning it already is no error.
func (s *Share) AddBlock(i int, now time.Time) {
	if s.blocks[i] != nil {
		return
	}
	p := s.layout.Block(i)
	b := &block{index: i, prefix: p, idle: now, slots: make([]slot, 1<<(p.Addr().BitLen()-p.Bits()))}
	for k := range b.slots {
		sl := &b.slots[k]
		sl.block, sl.addr = b, plus(p.Addr(), uint64(k))
		if _, ok := s.layout.Reserved(sl.addr); ok || !s.layout.rng.Contains(sl.addr) {
			sl.state = slotReserved
			continue
		}
		s.fresh.push(sl)
	}
	s.blocks[i] = b
}

// Withdraw stops the share from giving addresses of block i; those held stay
// held until they are released.
func (s *Share) Withdraw(i int) {
	b := s.blocks[i]
	if b == nil || b.withdrawn {
		return
	}
	b.withdrawn = true
	for k := range b.slots {
		b.slots[k].unlink()
	}
}

// Reinstate ends the withdrawal of block i: its free addresses are given out
// again, after the cooldown.
func (s *Share) Reinstate(i int, now time.Time) {
	b := s.blocks[i]
	if b == nil || !b.withdrawn {
		return
	}
	b.withdrawn = false
	for k := range b.slots {
		if sl := &b.slots[k]; sl.state == slotFree {
			sl.at = now
			s.used.push(sl)
		}
	}
}

// RemoveBlock gives block i up. It reports false, and does nothing, when the
// share does not own it or one of its addresses is held.
func (s *Share) RemoveBlock(i int) bool {
	b := s.blocks[i]
	if b == nil || b.held > 0 {
		return false
	}
	for k := range b.slots {
		sl := &b.slots[k]
		sl.unlink()
		s.forget(sl)
	}
	delete(s.blocks, i)
	return true
}

// Reserve keeps an address from everybody from now on, its present holder
// included: that one was only a stand-in for something outside the fleet.
func (s *Share) Reserve(a netip.Addr) {
	s.layout.reserved[a] = ReservedAux
	sl, err := s.slot(a)
	if err != nil {
		return
	}
	s.vacate(sl)
	sl.unlink()
	s.forget(sl)
	sl.state, sl.name = slotReserved, ""
}

// Blocks returns the indexes of the owned blocks, in no order.
func (s *Share) Blocks() []int {
	is := make([]int, 0, len(s.blocks))
	for i := range s.blocks {
		is = append(is, i)
	}
	return is
}

// Owns reports whether block i is owned, withdrawn or not.
func (s *Share) Owns(i int) bool { return s.blocks[i] != nil }

// Withdrawn reports whether block i is owned in name only.
func (s *Share) Withdrawn(i int) bool { return s.blocks[i] != nil && s.blocks[i].withdrawn }

// Idle returns the owned blocks of which nothing was held for at least the
// given time.
func (s *Share) Idle(now time.Time, since time.Duration) []int {
	var is []int
	for i, b := range s.blocks {
		if b.held == 0 && now.Sub(b.idle) >= since {
			is = append(is, i)
		}
	}
	return is
}

// IdleSince is since when nothing of block i was held, or when it came; it
// means nothing while something is.
func (s *Share) IdleSince(i int) time.Time {
	if b := s.blocks[i]; b != nil {
		return b.idle
	}
	return time.Time{}
}

// Free is how many addresses can be given, those that cool down included.
func (s *Share) Free() int { return s.fresh.n + s.used.n }

// Held is how many addresses are held.
func (s *Share) Held() int { return s.held }

// Low reports whether less than a quarter of the addresses are free, or all
// free ones were released a moment ago: it is time for another block.
func (s *Share) Low(now time.Time) bool {
	free := s.Free()
	return 4*free < free+s.held || !s.Ready(now)
}

// Ready reports whether an address can be given that needs no cooldown.
func (s *Share) Ready(now time.Time) bool {
	return s.fresh.head != nil || s.cool(s.used.head, now)
}

func (s *Share) cool(sl *slot, now time.Time) bool {
	return sl != nil && now.Sub(sl.at) >= s.cooldown
}

// Allocate gives an address to the named holder ("" when not known): the one
// the name had last, else the one that is free for longest. With hot it also
// gives an address whose cooldown is not over. It reports false when there is
// none.
func (s *Share) Allocate(name string, now time.Time, hot bool) (netip.Addr, bool) {
	sl := s.last[name]
	if sl == nil || sl.on == nil {
		sl = s.fresh.head
	}
	if sl == nil && (hot || s.cool(s.used.head, now)) {
		sl = s.used.head
	}
	if sl == nil {
		return netip.Addr{}, false
	}
	s.hold(sl, name, now)
	return sl.addr, true
}

// Take gives one address to the named holder. It returns [ErrOutside],
// [ErrReserved], [ErrNotOwned], [ErrWithdrawn] or [ErrInUse], wrapped.
func (s *Share) Take(a netip.Addr, name string, now time.Time) error {
	if why, ok := s.layout.Reserved(a); ok {
		return fmt.Errorf("take address %s: %w: it is %s", a, ErrReserved, why)
	}
	sl, err := s.slot(a)
	if err != nil {
		return err
	}
	switch {
	case sl.state == slotHeld && sl.name != "":
		return fmt.Errorf("take address %s: %w by %s", a, ErrInUse, sl.name)
	case sl.state == slotHeld:
		return fmt.Errorf("take address %s: %w", a, ErrInUse)
	case sl.state == slotLent:
		return fmt.Errorf("take address %s: %w, %s", a, ErrLent, sl.name)
	case sl.block.withdrawn:
		return fmt.Errorf("take address %s: %w", a, ErrWithdrawn)
	case sl.state == slotReserved:
		// Outside the range addresses are given from, but asked for by
		// name: docker's own IPAM grants that too.
		sl.state = slotFree
	}
	s.hold(sl, name, now)
	return nil
}

// Restore makes an address held whatever it was, as a journal says it is. It
// does nothing when the share does not own the address's block.
func (s *Share) Restore(a netip.Addr, name string, at time.Time) {
	sl, err := s.slot(a)
	if err != nil {
		return
	}
	s.vacate(sl)
	s.hold(sl, name, at)
}

// vacate makes nobody hold a slot, without making it free.
func (s *Share) vacate(sl *slot) {
	switch sl.state {
	case slotHeld:
		s.held--
		fallthrough
	case slotLent:
		sl.block.held--
		sl.state = slotReserved
	}
}

// Release takes an address back and reports whether it was held.
func (s *Share) Release(a netip.Addr, now time.Time) bool {
	sl, err := s.slot(a)
	if err != nil || sl.state != slotHeld {
		return false
	}
	s.drop(sl, now)
	return true
}

// drop makes a held or lent slot free.
func (s *Share) drop(sl *slot, now time.Time) {
	s.vacate(sl)
	sl.at = now
	if sl.block.held == 0 {
		sl.block.idle = now
	}
	if _, ok := s.layout.Reserved(sl.addr); ok || !s.layout.rng.Contains(sl.addr) {
		return
	}
	sl.state = slotFree
	if !sl.block.withdrawn {
		s.free(sl)
	}
}

// Remember notes that a free address was last held by name until the given
// time, as a journal says. It does nothing when the address is held or not
// the share's.
func (s *Share) Remember(a netip.Addr, name string, at time.Time) {
	sl, err := s.slot(a)
	if err != nil || sl.state != slotFree || sl.block.withdrawn {
		return
	}
	sl.unlink()
	s.forget(sl)
	sl.name, sl.at = name, at
	if name != "" {
		s.last[name] = sl
	}
	if sl.block.idle.Before(at) {
		sl.block.idle = at
	}
	s.free(sl)
}

// Holder returns who holds an address; ok is false when nobody does.
func (s *Share) Holder(a netip.Addr) (h Held, ok bool) {
	sl, err := s.slot(a)
	if err != nil || sl.state != slotHeld {
		return Held{}, false
	}
	return Held{Addr: a, Name: sl.name, Since: sl.at}, true
}

// EachHeld calls f for each held address, in no order.
func (s *Share) EachHeld(f func(Held)) { s.each(slotHeld, f) }

// EachUsed calls f for each free address that was held before, in the order
// of release; Since is the time of the release.
func (s *Share) EachUsed(f func(Held)) {
	for sl := s.used.head; sl != nil; sl = sl.next {
		f(Held{sl.addr, sl.name, sl.at})
	}
}

func (s *Share) slot(a netip.Addr) (*slot, error) {
	i, err := s.layout.Index(a)
	if errors.Is(err, ErrNoBlock) {
		return nil, fmt.Errorf("find address %s: %w", a, ErrNotOwned)
	} else if err != nil {
		return nil, err
	}
	b := s.blocks[i]
	if b == nil {
		return nil, fmt.Errorf("find address %s: %w", a, ErrNotOwned)
	}
	return &b.slots[numberOf(a).sub(numberOf(b.prefix.Addr())).lo], nil
}

func (s *Share) hold(sl *slot, name string, now time.Time) {
	sl.unlink()
	s.forget(sl)
	sl.state, sl.name, sl.at = slotHeld, name, now
	if name != "" {
		s.last[name] = sl
	}
	sl.block.held++
	s.held++
}

func (s *Share) each(st state, f func(Held)) {
	for _, b := range s.blocks {
		if b.held == 0 {
			continue
		}
		for k := range b.slots {
			if sl := &b.slots[k]; sl.state == st {
				f(Held{sl.addr, sl.name, sl.at})
			}
		}
	}
}

// forget ends a name's hold on the address it had last.
func (s *Share) forget(sl *slot) {
	if sl.name != "" && s.last[sl.name] == sl {
		delete(s.last, sl.name)
	}
}

// free puts an address where it is given out again.
func (s *Share) free(sl *slot) {
	if sl.at.IsZero() {
		s.fresh.push(sl)
	} else {
		s.used.push(sl)
	}
}
