package planes

import (
	"encoding/binary"
	"net/netip"
)

// nobody is an address of a subnet that no container has.
func nobody(subnet string) string {
	p := netip.MustParsePrefix(subnet)
	a := p.Addr().AsSlice()
	a[len(a)-2], a[len(a)-1] = 0x0e, 0xee
	n, _ := netip.AddrFromSlice(a)
	return n.String()
}

// flooded reports whether a frame between hosts carries one that is meant for
// many: within VXLAN, or as it is from a container.
func flooded(frame []byte) bool {
	const ethernet, ipv4, udp, vxlan = 14, 20, 8, 8
	if len(frame) < ethernet+ipv4+udp+vxlan+6 || binary.BigEndian.Uint16(frame[12:]) != 0x0800 || frame[ethernet+9] != 17 {
		return false
	}
	at := ethernet + int(frame[ethernet]&0x0f)*4
	if len(frame) < at+udp+vxlan+6 || binary.BigEndian.Uint16(frame[at+2:]) != 7483 {
		return false
	}
	return frame[at+udp+vxlan]&1 != 0
}
