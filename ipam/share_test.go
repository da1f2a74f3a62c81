package ipam

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"pgregory.net/rapid"
)

var start = time.Unix(1_700_000_000, 0)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestShareGivesEachAddressOnce(t *testing.T) {
	s := NewShare(layout(t, "10.32.0.0/24"), time.Minute)
	s.AddBlock(0, start)
	s.AddBlock(0, start)
	seen := map[netip.Addr]bool{}
	for {
		a, ok := s.Allocate("", start, true)
		if !ok {
			break
		}
		assert.Assert(t, !seen[a], "%s twice", a)
		seen[a] = true
	}
	assert.Equal(t, len(seen), 14) // not the subnet's own, not the gateway
	assert.Assert(t, !seen[addr("10.32.0.0")] && !seen[addr("10.32.0.1")])
	assert.Equal(t, s.Held(), 14)
	assert.Equal(t, s.Free(), 0)
}

func TestShareReusesTheLongestFree(t *testing.T) {
	s := NewShare(layout(t, "10.32.0.0/24"), time.Minute)
	s.AddBlock(1, start)
	var got []netip.Addr
	for range 16 {
		a, ok := s.Allocate("", start, false)
		assert.Assert(t, ok)
		got = append(got, a)
	}
	assert.Assert(t, s.Release(got[5], start))
	assert.Assert(t, !s.Release(got[5], start), "released twice")
	assert.Assert(t, s.Release(got[2], start.Add(10*time.Second)))

	_, ok := s.Allocate("", start.Add(30*time.Second), false)
	assert.Assert(t, !ok, "an address was given out again during its cooldown")
	assert.Assert(t, s.Low(start.Add(30*time.Second)))
	a, ok := s.Allocate("", start.Add(30*time.Second), true)
	assert.Assert(t, ok)
	assert.Equal(t, a, got[5])
	a, ok = s.Allocate("", start.Add(70*time.Second), false)
	assert.Assert(t, ok)
	assert.Equal(t, a, got[2])
}

func TestShareKeepsAddressWithName(t *testing.T) {
	s := NewShare(layout(t, "10.32.0.0/24"), time.Minute)
	s.AddBlock(1, start)
	web, _ := s.Allocate("web", start, false)
	db, _ := s.Allocate("db", start, false)
	assert.Assert(t, s.Release(web, start))
	assert.Assert(t, s.Release(db, start))
	// Its own last address needs no cooldown.
	a, ok := s.Allocate("db", start, false)
	assert.Assert(t, ok)
	assert.Equal(t, a, db)
	// Others get addresses never used, so that web finds its own again.
	for range 14 {
		a, ok := s.Allocate("", start.Add(time.Hour), false)
		assert.Assert(t, ok)
		assert.Assert(t, a != web)
	}
	a, _ = s.Allocate("web", start.Add(time.Hour), false)
	assert.Equal(t, a, web)
	// A second container of the name does not take the first one's away.
	_, ok = s.Allocate("web", start.Add(time.Hour), true)
	assert.Assert(t, !ok)
	h, ok := s.Holder(web)
	assert.Assert(t, ok)
	assert.Equal(t, h.Name, "web")
}

func TestShareTake(t *testing.T) {
	subnet := netip.MustParsePrefix("10.32.0.0/24")
	l, err := NewLayout(subnet, 28, FirstAddress(subnet), netip.MustParsePrefix("10.32.0.0/29"), []netip.Addr{addr("10.32.0.5")}, false)
	assert.NilError(t, err)
	s := NewShare(l, time.Minute)
	s.AddBlock(0, start)
	assert.NilError(t, s.Take(addr("10.32.0.3"), "web", start))
	assert.ErrorContains(t, s.Take(addr("10.32.0.3"), "db", start), "in use by web")
	assert.ErrorIs(t, s.Take(addr("10.32.0.1"), "", start), ErrReserved)
	assert.ErrorIs(t, s.Take(addr("10.32.0.5"), "", start), ErrReserved)
	assert.ErrorIs(t, s.Take(addr("10.32.0.255"), "", start), ErrReserved)
	assert.ErrorIs(t, s.Take(addr("10.32.0.16"), "", start), ErrNotOwned)
	assert.ErrorIs(t, s.Take(addr("10.33.0.16"), "", start), ErrOutside)
	// Outside the range, but asked for by name: granted, never given again.
	assert.NilError(t, s.Take(addr("10.32.0.12"), "", start))
	assert.ErrorIs(t, s.Take(addr("10.32.0.12"), "", start), ErrInUse)
	assert.Assert(t, s.Release(addr("10.32.0.12"), start))
	free := s.Free()
	for range free {
		a, ok := s.Allocate("", start.Add(time.Hour), true)
		assert.Assert(t, ok)
		assert.Assert(t, l.rng.Contains(a), "%s", a)
	}
	_, ok := s.Allocate("", start.Add(time.Hour), true)
	assert.Assert(t, !ok)
}

func TestShareReserve(t *testing.T) {
	s := NewShare(layout(t, "10.32.0.0/24"), time.Minute)
	s.AddBlock(1, start)
	a, b := addr("10.32.0.20"), addr("10.32.0.21")
	assert.NilError(t, s.Take(a, "", start))
	s.Reserve(a)
	s.Reserve(b)
	assert.Equal(t, s.Held(), 0)
	assert.Equal(t, s.Free(), 14)
	assert.ErrorIs(t, s.Take(a, "", start), ErrReserved)
	assert.ErrorIs(t, s.Take(b, "", start), ErrReserved)
	assert.Assert(t, !s.Release(a, start))
}

func TestShareWithdrawAndRemove(t *testing.T) {
	s := NewShare(layout(t, "10.32.0.0/24"), time.Minute)
	s.AddBlock(1, start)
	s.AddBlock(2, start)
	a, _ := s.Allocate("web", start, false)
	i, err := s.Layout().Index(a)
	assert.NilError(t, err)
	assert.Assert(t, !s.RemoveBlock(i), "removed a block that is in use")
	s.Withdraw(i)
	assert.Assert(t, s.Withdrawn(i))
	for range 16 {
		b, ok := s.Allocate("", start, true)
		assert.Assert(t, ok)
		assert.Assert(t, !s.Layout().Block(i).Contains(b))
	}
	_, ok := s.Allocate("", start, true)
	assert.Assert(t, !ok)
	assert.ErrorIs(t, s.Take(a.Next(), "", start), ErrWithdrawn)
	assert.Assert(t, s.Release(a, start))
	_, ok = s.Allocate("web", start.Add(time.Hour), true)
	assert.Assert(t, !ok, "a withdrawn address was given out")
	assert.Assert(t, s.RemoveBlock(i))
	assert.Assert(t, !s.RemoveBlock(i))
	assert.Equal(t, len(s.Blocks()), 1)
}

func TestShareIdle(t *testing.T) {
	s := NewShare(layout(t, "10.32.0.0/24"), time.Minute)
	s.AddBlock(1, start)
	s.AddBlock(2, start)
	a, _ := s.Allocate("", start, false)
	assert.Equal(t, len(s.Idle(start, time.Minute)), 0)
	later := start.Add(time.Minute)
	assert.Equal(t, len(s.Idle(later, time.Minute)), 1)
	s.Release(a, later)
	assert.Equal(t, len(s.Idle(later, time.Minute)), 1)
	assert.Equal(t, len(s.Idle(later.Add(time.Minute), time.Minute)), 2)
}

// A share that replays what another one did is in the same state.
func TestShareRestore(t *testing.T) {
	l := layout(t, "10.32.0.0/24")
	a, b := NewShare(l, time.Minute), NewShare(l, time.Minute)
	a.AddBlock(1, start)
	b.AddBlock(1, start)
	for i := range 10 {
		_, ok := a.Allocate(fmt.Sprint(i), start, false)
		assert.Assert(t, ok)
	}
	for i := range 5 {
		a.Release(addr("10.32.0.17").Next(), start.Add(time.Duration(i)))
		a.Release(l.Block(1).Addr(), start.Add(time.Duration(i)))
	}
	a.EachUsed(func(h Held) { b.Remember(h.Addr, h.Name, h.Since) })
	a.EachHeld(func(h Held) { b.Restore(h.Addr, h.Name, h.Since) })
	assert.Equal(t, a.Held(), b.Held())
	assert.Equal(t, a.Free(), b.Free())
	for i := range a.Free() {
		name := ""
		if i == 0 {
			name = "0"
		}
		x, _ := a.Allocate(name, start.Add(time.Hour), false)
		y, _ := b.Allocate(name, start.Add(time.Hour), false)
		assert.Equal(t, x, y)
	}
	b.Restore(l.Block(1).Addr(), "again", start)
	b.Restore(addr("10.32.0.99"), "not ours", start)
	assert.Equal(t, b.Held(), 16)
}

// model is a share as simple as it can be.
type model struct {
	held  map[netip.Addr]string
	freed map[netip.Addr]time.Time // of the owned free ones
	lent  map[netip.Addr]string
}

func TestShareAgainstModel(t *testing.T) {
	ipv4 := layout(t, "10.32.0.0/26") // blocks of 4
	ipv6, err := NewLayout(netip.MustParsePrefix("fd12::/64"), 126, addr("fd12::1"), netip.MustParsePrefix("fd12::/122"), nil, false)
	assert.NilError(t, err)
	t.Run("IPv4", func(t *testing.T) { shareAgainstModel(t, ipv4) })
	t.Run("IPv6", func(t *testing.T) { shareAgainstModel(t, ipv6) })
}

func shareAgainstModel(t *testing.T, l *Layout) {
	const cooldown = 10 * time.Second
	rapid.Check(t, func(r *rapid.T) {
		s, m, now := NewShare(l, cooldown), model{map[netip.Addr]string{}, map[netip.Addr]time.Time{}, map[netip.Addr]string{}}, start
		drawAddr := func(r *rapid.T) netip.Addr {
			return plus(l.Subnet().Addr(), rapid.Uint64Range(0, 70).Draw(r, "address"))
		}
		drawName := rapid.SampledFrom([]string{"", "", "a", "b", "c"})
		r.Repeat(map[string]func(*rapid.T){
			"add": func(r *rapid.T) {
				i := rapid.IntRange(0, l.Count()-1).Draw(r, "block")
				if !s.Owns(i) {
					for a := l.Block(i).Addr(); l.Block(i).Contains(a); a = a.Next() {
						if _, ok := l.Reserved(a); !ok {
							m.freed[a] = time.Time{}
						}
					}
				}
				s.AddBlock(i, start)
			},
			"remove": func(r *rapid.T) {
				i := rapid.IntRange(0, l.Count()-1).Draw(r, "block")
				busy := !s.Owns(i)
				for _, has := range []map[netip.Addr]string{m.held, m.lent} {
					for a := range has {
						busy = busy || l.Block(i).Contains(a)
					}
				}
				if s.RemoveBlock(i) == busy {
					r.Fatalf("remove block %d: busy %t", i, busy)
				}
				if !busy {
					for a := range m.freed {
						if l.Block(i).Contains(a) {
							delete(m.freed, a)
						}
					}
				}
			},
			"allocate": func(r *rapid.T) {
				name, hot := drawName.Draw(r, "name"), rapid.Bool().Draw(r, "hot")
				a, ok := s.Allocate(name, now, hot)
				if !ok {
					for x, at := range m.freed {
						if hot || at.IsZero() || now.Sub(at) >= cooldown {
							r.Fatalf("refused while %s is free", x)
						}
					}
					return
				}
				at, free := m.freed[a]
				if !free {
					r.Fatalf("gave %s, which is not free", a)
				}
				if name == "" {
					for x, other := range m.freed {
						if other.Before(at) {
							r.Fatalf("gave %s, but %s is free for longer", a, x)
						}
					}
					if !hot && !at.IsZero() && now.Sub(at) < cooldown {
						r.Fatalf("gave %s during its cooldown", a)
					}
				}
				delete(m.freed, a)
				m.held[a] = name
			},
			"take": func(r *rapid.T) {
				a, name := drawAddr(r), drawName.Draw(r, "name")
				_, free := m.freed[a]
				if err := s.Take(a, name, now); (err == nil) != free {
					r.Fatalf("take %s: %v, free %t", a, err, free)
				}
				if free {
					delete(m.freed, a)
					m.held[a] = name
				}
			},
			"release": func(r *rapid.T) {
				a := drawAddr(r)
				_, held := m.held[a]
				if s.Release(a, now) != held {
					r.Fatalf("release %s: held %t", a, held)
				}
				if held {
					delete(m.held, a)
					m.freed[a] = now
				}
			},
			"lend": func(r *rapid.T) {
				a, to := drawAddr(r), rapid.SampledFrom([]string{"h1", "h2"}).Draw(r, "host")
				_, free := m.freed[a]
				if err := s.Lend(a, to, now); (err == nil) != (free || m.lent[a] == to) {
					r.Fatalf("lend %s to %s: %v, free %t, lent to %q", a, to, err, free, m.lent[a])
				}
				if free {
					delete(m.freed, a)
					m.lent[a] = to
				}
			},
			"return": func(r *rapid.T) {
				a := drawAddr(r)
				_, lent := m.lent[a]
				if s.Return(a, now) != lent {
					r.Fatalf("return %s: lent %t", a, lent)
				}
				if lent {
					delete(m.lent, a)
					m.freed[a] = now
				}
			},
			"wait": func(r *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 8000).Draw(r, "ms")) * time.Millisecond)
			},
			"": func(r *rapid.T) {
				if s.Held() != len(m.held) || s.Free() != len(m.freed) {
					r.Fatalf("held %d want %d, free %d want %d", s.Held(), len(m.held), s.Free(), len(m.freed))
				}
				lent := 0
				s.EachLent(func(h Held) {
					if lent++; m.lent[h.Addr] != h.Name {
						r.Fatalf("%s is lent to %q, want %q", h.Addr, h.Name, m.lent[h.Addr])
					}
				})
				if lent != len(m.lent) {
					r.Fatalf("lent %d want %d", lent, len(m.lent))
				}
				s.EachHeld(func(h Held) {
					if name, ok := m.held[h.Addr]; !ok || name != h.Name {
						r.Fatalf("%s is held by %q, want %q", h.Addr, h.Name, name)
					}
				})
			},
		})
	})
}

// The time of one allocation is the same in an empty and in a full /16.
func BenchmarkShareAllocate(b *testing.B) {
	for _, fill := range []int{0, 50, 99} {
		b.Run(percent(fill), func(b *testing.B) {
			l := layout(b, "10.32.0.0/16")
			s := NewShare(l, time.Minute)
			for i := range l.Count() {
				s.AddBlock(i, start)
			}
			for range s.Free() * fill / 100 {
				s.Allocate("", start, true)
			}
			b.ReportAllocs()
			for b.Loop() {
				a, ok := s.Allocate("", start, true)
				if !ok || !s.Release(a, start) {
					b.Fatal("full")
				}
			}
		})
	}
}

func BenchmarkShareFillSlash16(b *testing.B) {
	l := layout(b, "10.32.0.0/16")
	for b.Loop() {
		s := NewShare(l, time.Minute)
		for i := range l.Count() {
			s.AddBlock(i, start)
		}
		for s.Free() > 0 {
			s.Allocate("", start, true)
		}
	}
}
