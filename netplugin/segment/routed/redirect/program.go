package redirect

import (
	"encoding/binary"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// What the programs return to let a packet go on.
const goOn = -1 // TC_ACT_UNSPEC of linux/pkt_cls.h

// Offsets in struct __sk_buff of linux/bpf.h.
const (
	skbPktType     = 4
	skbProtocol    = 16
	skbVLANPresent = 20
	skbIfIndex     = 40
	skbData        = 76
	skbDataEnd     = 80
)

// Offsets from the beginning of an Ethernet frame with an IPv4 packet.
const (
	ipVersion  = 14
	ipFragment = 20
	ipTTL      = 22
	ipSource   = 26
	ipDest     = 30
	ipEnd      = 34
)

// The stack of both programs, from its end.
const (
	stSource   = -4
	stDest     = -8
	stIfIndex  = -12
	stWayBits  = -24 // a key of the map of ways: bits, address
	stWayKey   = -20
	stNeighbor = -48 // struct bpf_redir_neigh: family and 16 bytes of address
	stZero     = -52
)

// big is a number as the network has it, read by this machine.
func big(v uint16) int32 { return int32(binary.NativeEndian.Uint16([]byte{byte(v >> 8), byte(v)})) }

// parse leaves a packet alone that is no whole IPv4 packet without options for
// this host, and puts its addresses on the stack. R6 is the context from here
// on; R7 to R9 are free.
func parse() asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R1, asm.R6, skbPktType, asm.Word),
		asm.JNE.Imm(asm.R1, unix.PACKET_HOST, "pass"),
		asm.LoadMem(asm.R1, asm.R6, skbVLANPresent, asm.Word),
		asm.JNE.Imm(asm.R1, 0, "pass"),
		asm.LoadMem(asm.R1, asm.R6, skbProtocol, asm.Word),
		asm.JNE.Imm(asm.R1, big(unix.ETH_P_IP), "pass"),
		asm.LoadMem(asm.R7, asm.R6, skbData, asm.Word),
		asm.LoadMem(asm.R8, asm.R6, skbDataEnd, asm.Word),
		asm.Mov.Reg(asm.R1, asm.R7),
		asm.Add.Imm(asm.R1, ipEnd),
		asm.JGT.Reg(asm.R1, asm.R8, "pass"),
		asm.LoadMem(asm.R1, asm.R7, ipVersion, asm.Byte),
		asm.JNE.Imm(asm.R1, 0x45, "pass"),
		// Parts of packets need the connection tracking, to put them together.
		asm.LoadMem(asm.R1, asm.R7, ipFragment, asm.Half),
		asm.And.Imm(asm.R1, big(0x3fff)),
		asm.JNE.Imm(asm.R1, 0, "pass"),
		// The host answers those that have come far enough.
		asm.LoadMem(asm.R1, asm.R7, ipTTL, asm.Byte),
		asm.JLE.Imm(asm.R1, 1, "pass"),
		asm.LoadMem(asm.R1, asm.R7, ipSource, asm.Word),
		asm.StoreMem(asm.RFP, stSource, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, asm.R7, ipDest, asm.Word),
		asm.StoreMem(asm.RFP, stDest, asm.R1, asm.Word),
	}
}

// lookUp leaves in R0 what a map has for the key on the stack, or 0.
func lookUp(m *ebpf.Map, key int32) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, key),
		asm.FnMapLookupElem.Call(),
	}
}

// alive goes on only as long as the process that keeps the maps is. It uses R7.
func alive(m tables) asm.Instructions {
	return append(append(asm.Instructions{asm.StoreImm(asm.RFP, stZero, 0, asm.Word)}, lookUp(m.until, stZero)...),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.LoadMem(asm.R7, asm.R0, 0, asm.DWord),
		asm.FnKtimeGetCoarseNs.Call(),
		asm.JGT.Reg(asm.R0, asm.R7, "pass"),
	)
}

// lookUpWay is lookUp of the way to the address on the stack.
func lookUpWay(ways *ebpf.Map, address int16) asm.Instructions {
	return append(asm.Instructions{
		asm.StoreImm(asm.RFP, stWayBits, 32, asm.Word),
		asm.LoadMem(asm.R1, asm.RFP, address, asm.Word),
		asm.StoreMem(asm.RFP, stWayKey, asm.R1, asm.Word),
	}, lookUp(ways, stWayBits)...)
}

func pass() asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, goOn).WithSymbol("pass"), asm.Return()}
}

// leaving is the program for what leaves an endpoint: pins it to the link's
// address, and sends it to an endpoint of the same network.
func leaving(m tables) asm.Instructions {
	p := append(parse(), alive(m)...)
	p = append(p,
		asm.LoadMem(asm.R1, asm.R6, skbIfIndex, asm.Word),
		asm.StoreMem(asm.RFP, stIfIndex, asm.R1, asm.Word),
	)
	p = append(p, lookUp(m.links, stIfIndex)...)
	p = append(p,
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word),
		asm.LoadMem(asm.R2, asm.RFP, stSource, asm.Word),
		asm.JNE.Reg(asm.R1, asm.R2, "pass"),
		asm.LoadMem(asm.R9, asm.R0, 4, asm.Word), // the network
	)
	p = append(p, lookUp(m.ends, stDest)...)
	p = append(p,
		asm.JEq.Imm(asm.R0, 0, "elsewhere"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word),
		asm.JNE.Reg(asm.R1, asm.R9, "pass"),
		asm.LoadMem(asm.R1, asm.R0, 4, asm.Word),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirectPeer.Call(),
		asm.Return(),
	)
	way := lookUpWay(m.ways, stDest)
	way[0] = way[0].WithSymbol("elsewhere")
	p = append(p, way...)
	p = append(p,
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word),
		asm.JNE.Reg(asm.R1, asm.R9, "pass"),
		asm.LoadMem(asm.R1, asm.R0, 8, asm.Word),
		asm.StoreImm(asm.RFP, stNeighbor, unix.AF_INET, asm.Word),
		asm.StoreMem(asm.RFP, stNeighbor+4, asm.R1, asm.Word),
		asm.StoreImm(asm.RFP, stNeighbor+8, 0, asm.Word),
		asm.StoreImm(asm.RFP, stNeighbor+12, 0, asm.Word),
		asm.StoreImm(asm.RFP, stNeighbor+16, 0, asm.Word),
		asm.LoadMem(asm.R1, asm.R0, 4, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stNeighbor),
		asm.Mov.Imm(asm.R3, 20),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnRedirectNeigh.Call(),
		asm.Return(),
	)
	return append(p, pass()...)
}

// entering is the program for what comes from other hosts: hands what is from
// an endpoint elsewhere to one of the same network here.
func entering(m tables) asm.Instructions {
	p := append(parse(), lookUp(m.ends, stDest)...)
	p = append(p,
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.LoadMem(asm.R9, asm.R0, 0, asm.Word), // the network
		asm.LoadMem(asm.R8, asm.R0, 4, asm.Word), // the link
	)
	p = append(p, alive(m)...)
	// An address of this host can only come from its link.
	p = append(p, lookUp(m.ends, stSource)...)
	p = append(p, asm.JNE.Imm(asm.R0, 0, "pass"))
	p = append(p, lookUpWay(m.ways, stSource)...)
	p = append(p,
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word),
		asm.JNE.Reg(asm.R1, asm.R9, "pass"),
		asm.Mov.Reg(asm.R1, asm.R8),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirectPeer.Call(),
		asm.Return(),
	)
	return append(p, pass()...)
}
