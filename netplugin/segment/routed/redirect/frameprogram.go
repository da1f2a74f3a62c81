package redirect

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// Offsets from the beginning of an Ethernet frame.
const (
	frameDest   = 0
	frameSource = 6
)

// The stack of the programs for frames, from its end.
const (
	stStation     = -24 // a key of the map of stations: VNI, hardware address
	stStationMAC  = -20
	stStationRest = -14
)

// parseFrame leaves a frame alone that does not hold an IPv4 packet, or is for
// the port itself or for many. R6 is the context and R7 the frame from here on;
// R9 is free.
func parseFrame(until *ebpf.Map) asm.Instructions {
	p := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R1, asm.R6, skbPktType, asm.Word),
		asm.JNE.Imm(asm.R1, unix.PACKET_OTHERHOST, "pass"),
		asm.LoadMem(asm.R1, asm.R6, skbVLANPresent, asm.Word),
		asm.JNE.Imm(asm.R1, 0, "pass"),
		asm.LoadMem(asm.R1, asm.R6, skbProtocol, asm.Word),
		asm.JNE.Imm(asm.R1, big(unix.ETH_P_IP), "pass"),
	}
	return append(append(p, alive(tables{until: until})...),
		asm.LoadMem(asm.R7, asm.R6, skbData, asm.Word),
		asm.LoadMem(asm.R8, asm.R6, skbDataEnd, asm.Word),
		asm.Mov.Reg(asm.R1, asm.R7),
		asm.Add.Imm(asm.R1, ipEnd),
		asm.JGT.Reg(asm.R1, asm.R8, "pass"),
		asm.LoadMem(asm.R1, asm.R6, skbIfIndex, asm.Word),
		asm.StoreMem(asm.RFP, stIfIndex, asm.R1, asm.Word),
	)
}

// lookUpStation is lookUp of the frame's destination in the network of R9.
func lookUpStation(stations *ebpf.Map) asm.Instructions {
	p := asm.Instructions{asm.StoreMem(asm.RFP, stStation, asm.R9, asm.Word)}
	for i := int16(0); i < 6; i += 2 {
		p = append(p, asm.LoadMem(asm.R1, asm.R7, frameDest+i, asm.Half), asm.StoreMem(asm.RFP, stStationMAC+i, asm.R1, asm.Half))
	}
	return append(append(p, asm.StoreImm(asm.RFP, stStationRest, 0, asm.Half)), lookUp(stations, stStation)...)
}

// handOver gives the frame to the local endpoint whose link is in R9, if that
// takes part.
func handOver(ports *ebpf.Map) asm.Instructions {
	p := append(asm.Instructions{asm.StoreMem(asm.RFP, stIfIndex, asm.R9, asm.Word)}, lookUp(ports, stIfIndex)...)
	return append(p,
		asm.JEq.Imm(asm.R0, 0, "pass"),
		// For the container it is its own.
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, unix.PACKET_HOST),
		asm.FnSkbChangeType.Call(),
		asm.Mov.Reg(asm.R1, asm.R9),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirectPeer.Call(),
		asm.Return(),
	)
}

// framesLeaving is the program for what leaves an endpoint's port: pins it to
// the port's addresses, and does with it what the bridge would.
func framesLeaving(m frameTables, until *ebpf.Map) asm.Instructions {
	p := append(parseFrame(until), lookUp(m.ports, stIfIndex)...)
	p = append(p,
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.LoadMem(asm.R9, asm.R0, 0, asm.Word), // the network
		asm.LoadMem(asm.R1, asm.R0, 4, asm.Word),
		asm.LoadMem(asm.R2, asm.R7, ipSource, asm.Word),
		asm.JNE.Reg(asm.R1, asm.R2, "pass"),
	)
	for i := int16(0); i < 6; i += 2 {
		p = append(p, asm.LoadMem(asm.R1, asm.R0, 8+i, asm.Half), asm.LoadMem(asm.R2, asm.R7, frameSource+i, asm.Half), asm.JNE.Reg(asm.R1, asm.R2, "pass"))
	}
	p = append(p, lookUpStation(m.stations)...)
	p = append(p,
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.LoadMem(asm.R9, asm.R0, 0, asm.Word), // the link
		asm.LoadMem(asm.R8, asm.R0, 4, asm.Word),
		asm.JNE.Imm(asm.R8, 0, "here"),
		asm.Mov.Reg(asm.R1, asm.R9),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirect.Call(),
		asm.Return(),
	)
	here := handOver(m.ports)
	here[0] = here[0].WithSymbol("here")
	return append(append(p, here...), pass()...)
}

// framesEntering is the program for what comes by a tunnel for an endpoint
// here. Its source is what the other host has seen to.
func framesEntering(m frameTables, until *ebpf.Map) asm.Instructions {
	p := append(parseFrame(until), lookUp(m.tunnels, stIfIndex)...)
	p = append(p,
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.LoadMem(asm.R9, asm.R0, 0, asm.Word), // the network
	)
	p = append(p, lookUpStation(m.stations)...)
	p = append(p,
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.LoadMem(asm.R9, asm.R0, 0, asm.Word), // the link
		asm.LoadMem(asm.R8, asm.R0, 4, asm.Word),
		asm.JEq.Imm(asm.R8, 0, "pass"),
	)
	return append(append(p, handOver(m.ports)...), pass()...)
}
