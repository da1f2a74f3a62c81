package redirect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"clocker.io/clocker/netplugin/segment"
)

// frameTables are what the programs of bridged networks decide by.
type frameTables struct {
	ports    *ebpf.Map // index of a port -> VNI, its IPv4 address, its hardware address
	tunnels  *ebpf.Map // index of a tunnel -> VNI
	stations *ebpf.Map // VNI and hardware address -> link, 1 if of this host
}

// Frames takes frames of bridged networks past their bridges. All methods may
// be called at the same time; those of a nil Frames do nothing.
type Frames struct {
	frameTables
	handle       *netlink.Handle
	leave, enter *ebpf.Program

	mu       sync.Mutex
	ports    map[int]segment.Port   // by link; guarded by mu
	tunnels  map[int]segment.Tunnel // by link; guarded by mu
	attached map[int]bool           // guarded by mu
	// left and dropped are as in [Redirect], ports by name.
	left, dropped map[string]bool
}

// newFrames loads the programs. They work as long as until says.
func newFrames(h *netlink.Handle, until *ebpf.Map) (*Frames, error) {
	f := &Frames{handle: h, ports: map[int]segment.Port{}, tunnels: map[int]segment.Tunnel{}, attached: map[int]bool{}, dropped: map[string]bool{}}
	var err error
	load := func(m **ebpf.Map, name string, key, value, entries uint32) {
		if err == nil {
			*m, err = ebpf.NewMap(&ebpf.MapSpec{Name: name, Type: ebpf.Hash, KeySize: key, ValueSize: value, MaxEntries: entries, Flags: noPrealloc})
		}
	}
	load(&f.frameTables.ports, "clocker_ports", 4, 16, maxEnds)
	load(&f.frameTables.tunnels, "clocker_tunnels", 4, 4, maxEnds)
	load(&f.frameTables.stations, "clocker_stations", 12, 8, maxWays)
	if err == nil {
		f.leave, err = ebpf.NewProgram(&ebpf.ProgramSpec{
			Name: "clocker_fleave", Type: ebpf.SchedCLS, Instructions: framesLeaving(f.frameTables, until), License: "Apache-2.0",
		})
	}
	if err == nil {
		f.enter, err = ebpf.NewProgram(&ebpf.ProgramSpec{
			Name: "clocker_fenter", Type: ebpf.SchedCLS, Instructions: framesEntering(f.frameTables, until), License: "Apache-2.0",
		})
	}
	if err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// Frames are those of bridged networks, nil without programs.
func (r *Redirect) Frames() *Frames {
	if r == nil {
		return nil
	}
	return r.frames
}

func (f *Frames) close() {
	if f == nil {
		return
	}
	for _, m := range []*ebpf.Map{f.frameTables.ports, f.frameTables.tunnels, f.frameTables.stations} {
		if m != nil {
			m.Close()
		}
	}
	for _, p := range []*ebpf.Program{f.leave, f.enter} {
		if p != nil {
			p.Close()
		}
	}
}

// putStation says where frames for a hardware address go.
func (f *Frames) putStation(vni int, mac [6]byte, link int, local bool) error {
	if f == nil {
		return nil
	}
	here := uint32(0)
	if local {
		here = 1
	}
	k := stationKey(vni, mac)
	if err := f.stations.Put(k, numbers(uint32(link), here)); err != nil {
		// An older place would be wrong; without any they go by the bridge.
		return errors.Join(fmt.Errorf("redirect frames to %x: %w", mac, err), absent(f.stations.Delete(k)))
	}
	return nil
}

// dropStation has frames for a hardware address go by the bridge.
func (f *Frames) dropStation(vni int, mac [6]byte) error {
	if f == nil {
		return nil
	}
	return absent(f.stations.Delete(stationKey(vni, mac)))
}

// dropPort stops redirecting to and from a local endpoint.
func (f *Frames) dropPort(name string) error {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dropped[name] = true
	for i, p := range f.ports {
		if p.Name == name {
			delete(f.ports, i)
			return absent(f.frameTables.ports.Delete(number(uint32(i))))
		}
	}
	return nil
}

// begin is [Redirect.Begin] for ports.
func (f *Frames) begin() {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.dropped)
}

// leaveNetworks is [Redirect.Leave] for bridged networks.
func (f *Frames) leaveNetworks(networks map[string]bool) error {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left = networks
	return f.take(func(p segment.Port) bool { return !networks[p.Network] }, func(t segment.Tunnel) bool { return !networks[t.Network] })
}

// take takes out of the maps what is not to be kept. Callers hold mu.
func (f *Frames) take(port func(segment.Port) bool, tunnel func(segment.Tunnel) bool) error {
	var errs []error
	for i, p := range f.ports {
		if !port(p) {
			errs = append(errs, absent(f.frameTables.ports.Delete(number(uint32(i)))))
			delete(f.ports, i)
		}
	}
	for i, t := range f.tunnels {
		if !tunnel(t) {
			errs = append(errs, absent(f.frameTables.tunnels.Delete(number(uint32(i)))))
			delete(f.tunnels, i)
		}
	}
	return errors.Join(errs...)
}

// apply makes these the ports and tunnels that frames are redirected between,
// but for those that were left or dropped since begin.
func (f *Frames) apply(ports []segment.Port, tunnels []segment.Tunnel) error {
	if f == nil {
		return nil
	}
	wantPorts, wantTunnels, programs := map[int]segment.Port{}, map[int]segment.Tunnel{}, map[int]*ebpf.Program{}
	for _, p := range ports {
		wantPorts[p.Index], programs[p.Index] = p, f.leave
	}
	for _, t := range tunnels {
		wantTunnels[t.Index], programs[t.Index] = t, f.enter
	}
	f.mu.Lock()
	err := f.take(func(p segment.Port) bool { return wantPorts[p.Index] == p }, func(t segment.Tunnel) bool { return wantTunnels[t.Index] == t })
	// Programs go with their links; without an entry they do nothing.
	for i := range f.attached {
		if programs[i] == nil {
			delete(f.attached, i)
		} else {
			delete(programs, i)
		}
	}
	f.mu.Unlock()
	errs := []error{err}
	for i, p := range programs {
		// Links that go at the same time make this wait.
		if err := attach(f.handle, i, p); err != nil {
			errs = append(errs, err)
			continue
		}
		f.mu.Lock()
		f.attached[i] = true
		f.mu.Unlock()
	}
	return errors.Join(append(errs, f.put(wantPorts, wantTunnels))...)
}

// put puts into the maps what is wanted now.
func (f *Frames) put(ports map[int]segment.Port, tunnels map[int]segment.Tunnel) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	put := func(m *ebpf.Map, index int, value []byte) bool {
		err := m.Put(number(uint32(index)), value)
		if err != nil {
			errs = append(errs, fmt.Errorf("redirect frames of interface %d: %w", index, err))
		}
		return err == nil
	}
	for i, p := range ports {
		if _, ok := f.ports[i]; ok || !f.attached[i] || f.left[p.Network] || f.dropped[p.Name] {
			continue
		}
		value := append(numbers(uint32(p.VNI), binary.NativeEndian.Uint32(key(p.Address))), append(p.MAC[:], 0, 0)...)
		if put(f.frameTables.ports, i, value) {
			f.ports[i] = p
		}
	}
	for i, t := range tunnels {
		if _, ok := f.tunnels[i]; ok || !f.attached[i] || f.left[t.Network] {
			continue
		}
		if put(f.frameTables.tunnels, i, number(uint32(t.VNI))) {
			f.tunnels[i] = t
		}
	}
	return errors.Join(errs...)
}

func stationKey(vni int, mac [6]byte) []byte {
	return append(append(number(uint32(vni)), mac[:]...), 0, 0)
}
