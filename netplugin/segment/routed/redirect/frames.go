package redirect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
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
	ports    map[int]segment.Port // by link; guarded by mu
	tunnels  map[int]int          // VNI by link; guarded by mu
	attached map[int]bool         // guarded by mu
}

// newFrames loads the programs. They work as long as until says.
func newFrames(h *netlink.Handle, until *ebpf.Map) (*Frames, error) {
	f := &Frames{handle: h, ports: map[int]segment.Port{}, tunnels: map[int]int{}, attached: map[int]bool{}}
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
	for i, p := range f.ports {
		if p.Name == name {
			delete(f.ports, i)
			return absent(f.frameTables.ports.Delete(number(uint32(i))))
		}
	}
	return nil
}

// apply makes these the ports and tunnels that frames are redirected between.
func (f *Frames) apply(ports []segment.Port, tunnels []segment.Tunnel) error {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	wantPorts, wantTunnels := map[int]segment.Port{}, map[int]int{}
	for _, p := range ports {
		wantPorts[p.Index] = p
	}
	for _, t := range tunnels {
		wantTunnels[t.Index] = t.VNI
	}
	var errs []error
	for i, p := range maps.Clone(f.ports) {
		if wantPorts[i] != p {
			errs = append(errs, absent(f.frameTables.ports.Delete(number(uint32(i)))))
			delete(f.ports, i)
		}
	}
	for i, vni := range maps.Clone(f.tunnels) {
		if wantTunnels[i] != vni {
			errs = append(errs, absent(f.frameTables.tunnels.Delete(number(uint32(i)))))
			delete(f.tunnels, i)
		}
	}
	// Programs go with their links; without an entry they do nothing.
	for i := range maps.Clone(f.attached) {
		_, port := wantPorts[i]
		if _, tunnel := wantTunnels[i]; !port && !tunnel {
			delete(f.attached, i)
		}
	}
	for i, p := range wantPorts {
		if _, ok := f.ports[i]; !ok {
			value := append(numbers(uint32(p.VNI), binary.NativeEndian.Uint32(key(p.Address))), append(p.MAC[:], 0, 0)...)
			errs = append(errs, f.add(i, f.leave, f.frameTables.ports, value))
			f.ports[i] = p
		}
	}
	for i, vni := range wantTunnels {
		if _, ok := f.tunnels[i]; !ok {
			errs = append(errs, f.add(i, f.enter, f.frameTables.tunnels, number(uint32(vni))))
			f.tunnels[i] = vni
		}
	}
	return errors.Join(errs...)
}

// add puts a program on a link and the link into a map. Callers hold mu.
func (f *Frames) add(index int, p *ebpf.Program, m *ebpf.Map, value []byte) error {
	if !f.attached[index] {
		if err := attach(f.handle, index, p); err != nil {
			return err
		}
		f.attached[index] = true
	}
	if err := m.Put(number(uint32(index)), value); err != nil {
		return fmt.Errorf("redirect frames of interface %d: %w", index, err)
	}
	return nil
}

func stationKey(vni int, mac [6]byte) []byte {
	return append(append(number(uint32(vni)), mac[:]...), 0, 0)
}
