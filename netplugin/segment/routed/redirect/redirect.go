package redirect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
)

// End is an endpoint of this host.
type End struct {
	// Network is the fleet's id of its network.
	Network string
	Address netip.Addr
	// Link is the index of the host's end of its link.
	Link int
}

// Way leads to endpoints of other hosts.
type Way struct {
	Network string
	Dst     netip.Prefix
	// Link is the index of the interface on the underlay, Gateway the
	// neighbour there that has the endpoints.
	Link    int
	Gateway netip.Addr
}

// Sizes of the maps: more than a host can have. They take memory as they fill.
const (
	maxEnds = 1 << 16
	maxWays = 1 << 17
)

// tables are what the programs decide by. Addresses are as in packets; all
// numbers are of 32 bits.
type tables struct {
	links *ebpf.Map // index of an endpoint's link -> its address, its network
	ends  *ebpf.Map // address of an endpoint of this host -> network, link
	ways  *ebpf.Map // prefix elsewhere -> network, link, gateway, nothing
	// until has one value: when the programs stop, in nanoseconds of the
	// monotonic clock.
	until *ebpf.Map
}

func (m tables) close() {
	for _, x := range []*ebpf.Map{m.links, m.ends, m.ways, m.until} {
		if x != nil {
			x.Close()
		}
	}
}

// Redirect holds the programs and what they decide by. All methods may be
// called at the same time; those of a nil Redirect do nothing.
type Redirect struct {
	tables
	handle       *netlink.Handle
	leave, enter *ebpf.Program
	// frames are those of bridged networks; never nil.
	frames *Frames

	mu       sync.Mutex
	networks map[string]uint32     // numbers of networks; guarded by mu
	have     map[netip.Addr]End    // guarded by mu
	known    map[netip.Prefix]Way  // guarded by mu
	attached map[int]*ebpf.Program // by interface; guarded by mu
	// left are networks that are not redirected, whatever a plan says that was
	// made before, and dropped the endpoints since [Redirect.Begin]; guarded by
	// mu.
	left    map[string]bool
	dropped map[netip.Addr]bool
}

// New loads the programs, and removes those of an earlier run from the
// underlay. They do nothing before [Redirect.Beat]. The error says what the kernel lacks: then packets
// go the long way, and nothing else is wrong.
func New(h *netlink.Handle) (*Redirect, error) {
	r := &Redirect{
		networks: map[string]uint32{}, have: map[netip.Addr]End{}, known: map[netip.Prefix]Way{}, attached: map[int]*ebpf.Program{}, handle: h,
		dropped: map[netip.Addr]bool{},
	}
	var err error
	load := func(m **ebpf.Map, name string, kind ebpf.MapType, key, value, entries uint32) {
		if err == nil {
			spec := &ebpf.MapSpec{Name: name, Type: kind, KeySize: key, ValueSize: value, MaxEntries: entries}
			if kind != ebpf.Array {
				spec.Flags = noPrealloc
			}
			*m, err = ebpf.NewMap(spec)
		}
	}
	load(&r.tables.links, "clocker_links", ebpf.Hash, 4, 8, maxEnds)
	load(&r.tables.ends, "clocker_ends", ebpf.Hash, 4, 8, maxEnds)
	load(&r.tables.ways, "clocker_ways", ebpf.LPMTrie, 8, 16, maxWays)
	load(&r.tables.until, "clocker_until", ebpf.Array, 4, 8, 1)
	program := func(p **ebpf.Program, name string) {
		if err == nil {
			code := leaving(r.tables)
			if name == "clocker_enter" {
				code = entering(r.tables)
			}
			*p, err = ebpf.NewProgram(&ebpf.ProgramSpec{Name: name, Type: ebpf.SchedCLS, Instructions: code, License: "Apache-2.0"})
		}
	}
	program(&r.leave, "clocker_leave")
	program(&r.enter, "clocker_enter")
	if err == nil {
		r.frames, err = newFrames(h, r.tables.until)
	}
	if err == nil {
		err = Clean(h)
	}
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("load redirecting programs: %w", err)
	}
	return r, nil
}

// noPrealloc is BPF_F_NO_PREALLOC of linux/bpf.h.
const noPrealloc = 1

// Close ends all redirecting; see [Clean] for what stays.
func (r *Redirect) Close() {
	if r == nil {
		return
	}
	_ = r.Beat(0)
	r.mu.Lock()
	defer r.mu.Unlock()
	// The programs stay where they are and do nothing any more: an interface
	// that they are taken off stops for a moment. [Clean] removes them.
	r.attached = map[int]*ebpf.Program{}
	for _, p := range []*ebpf.Program{r.leave, r.enter} {
		if p != nil {
			p.Close()
		}
	}
	r.frames.close()
	r.tables.close()
}

// Drop stops redirecting to and from an endpoint of this host. It must be
// called before its link goes, or its address may be another's.
func (r *Redirect) Drop(a netip.Addr) error {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.drop(a)
}

// DropLink is Drop of an endpoint that is going: what has its address by now on
// another link stays.
func (r *Redirect) DropLink(a netip.Addr, name string) error {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, ok := r.have[a]; ok {
		if l, err := net.InterfaceByIndex(e.Link); err == nil && l.Name != name {
			return nil
		}
	}
	return r.drop(a)
}

func (r *Redirect) drop(a netip.Addr) error {
	r.dropped[a] = true
	return r.forget(a)
}

// forget takes an endpoint out of the maps. Callers hold mu.
func (r *Redirect) forget(a netip.Addr) error {
	e, ok := r.have[a]
	if !ok {
		return nil
	}
	delete(r.have, a)
	return errors.Join(absent(r.tables.ends.Delete(key(a))), absent(r.tables.links.Delete(number(uint32(e.Link)))))
}

// absent forgives that something to be removed is not there.
func absent(err error) error {
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// Begin must come before a plan for [Redirect.Apply] is made: what is dropped
// from here on is not in the maps afterwards, whatever the plan says. One plan
// is made and applied at a time.
func (r *Redirect) Begin() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.dropped)
}

// Leave takes every packet of the given networks the long way from now on, and
// those of all others that were left before may go the short way again when
// they are applied. It does not wait for links.
func (r *Redirect) Leave(networks map[string]bool) error {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left = networks
	var errs []error
	for a, e := range r.have {
		if networks[e.Network] {
			errs = append(errs, r.forget(a))
		}
	}
	for dst, w := range r.known {
		if networks[w.Network] {
			errs = append(errs, r.forgetWay(dst))
		}
	}
	return errors.Join(errs...)
}

// forgetWay takes a way out of the maps. Callers hold mu.
func (r *Redirect) forgetWay(dst netip.Prefix) error {
	delete(r.known, dst)
	return absent(r.tables.ways.Delete(wayKey(dst)))
}

// Apply makes these the ends and ways that packets are redirected between;
// entries are the interfaces by which packets of other hosts come. Those of
// another family than IPv4 are left out, and so are networks that were left and
// endpoints that were dropped since the plan was begun.
func (r *Redirect) Apply(ends []End, ways []Way, entries []int) error {
	if r == nil {
		return nil
	}
	wantEnds, wantWays, wantLinks := map[netip.Addr]End{}, map[netip.Prefix]Way{}, map[int]*ebpf.Program{}
	for _, e := range ends {
		if e.Address.Is4() {
			wantEnds[e.Address], wantLinks[e.Link] = e, r.leave
		}
	}
	for _, w := range ways {
		if w.Dst.Addr().Is4() && w.Gateway.Is4() {
			wantWays[w.Dst] = w
		}
	}
	for _, i := range entries {
		wantLinks[i] = r.enter
	}
	errs := []error{r.take(wantEnds, wantWays, wantLinks)}
	// The programs first, which do nothing without the maps: were packets of a
	// connection to go the short way out and the long way back, the packet
	// filter would drop the answer to a beginning that it has not seen.
	for i, p := range r.missing(wantLinks) {
		// Links that go at the same time make this wait.
		if err := attach(r.handle, i, p); err != nil {
			errs = append(errs, err)
			continue
		}
		r.mu.Lock()
		r.attached[i] = p
		r.mu.Unlock()
	}
	return errors.Join(append(errs, r.put(wantEnds, wantWays))...)
}

// take takes out of the maps what is no longer wanted.
func (r *Redirect) take(ends map[netip.Addr]End, ways map[netip.Prefix]Way, links map[int]*ebpf.Program) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for a, e := range r.have {
		if ends[a] != e {
			errs = append(errs, r.forget(a))
		}
	}
	for dst, w := range r.known {
		if ways[dst] != w {
			errs = append(errs, r.forgetWay(dst))
		}
	}
	for i, p := range r.attached {
		if links[i] != p {
			// An endpoint's link is going, and without its address in the maps
			// the program does nothing; elsewhere it does no harm until Clean.
			delete(r.attached, i)
		}
	}
	return errors.Join(errs...)
}

// missing are the links without their program.
func (r *Redirect) missing(want map[int]*ebpf.Program) map[int]*ebpf.Program {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[int]*ebpf.Program{}
	for i, p := range want {
		if r.attached[i] != p {
			all[i] = p
		}
	}
	return all
}

// put puts into the maps what is wanted now.
func (r *Redirect) put(ends map[netip.Addr]End, ways map[netip.Prefix]Way) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for dst, w := range ways {
		if _, ok := r.known[dst]; ok || r.left[w.Network] {
			continue
		}
		gateway := w.Gateway.As4()
		value := append(numbers(r.number(w.Network), uint32(w.Link)), append(gateway[:], 0, 0, 0, 0)...)
		if err := r.tables.ways.Put(wayKey(dst), value); err != nil {
			errs = append(errs, fmt.Errorf("redirect to %s: %w", dst, err))
			continue
		}
		r.known[dst] = w
	}
	for a, e := range ends {
		if _, ok := r.have[a]; !ok && r.attached[e.Link] != nil && !r.left[e.Network] && !r.dropped[a] {
			errs = append(errs, r.add(e))
		}
	}
	return errors.Join(errs...)
}

func (r *Redirect) add(e End) error {
	n := r.number(e.Network)
	err := r.tables.links.Put(number(uint32(e.Link)), append(key(e.Address), number(n)...))
	if err == nil {
		err = r.tables.ends.Put(key(e.Address), numbers(n, uint32(e.Link)))
	}
	if err != nil {
		return fmt.Errorf("redirect to %s: %w", e.Address, err)
	}
	r.have[e.Address] = e
	return nil
}

// number is a network's number in the maps. It is never another's later.
func (r *Redirect) number(network string) uint32 {
	n, ok := r.networks[network]
	if !ok {
		n = uint32(len(r.networks) + 1)
		r.networks[network] = n
	}
	return n
}

func key(a netip.Addr) []byte {
	b := a.As4()
	return b[:]
}

func wayKey(p netip.Prefix) []byte {
	return append(number(uint32(p.Bits())), key(p.Addr())...)
}

func number(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

func numbers(a, b uint32) []byte { return append(number(a), number(b)...) }
