package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync/atomic"

	"golang.org/x/net/ipv4"
)

// The first byte of a TCP connection says what the server does with it.
const (
	askSink  = 's' // read to the end, then answer how many bytes there were
	askEcho  = 'e' // send back each read
	askCount = 'c' // answer how many UDP packets have arrived so far
)

// chunk is how much a stream reads and writes at once.
const chunk = 256 << 10

func (o options) at(port int) string { return net.JoinHostPort(o.address, strconv.Itoa(port)) }

// serve answers every measure until ctx ends.
func serve(ctx context.Context, o options) (figures, error) {
	l, err := net.Listen("tcp", o.at(o.port))
	if err != nil {
		return nil, err
	}
	echo, err := net.ListenPacket("udp", o.at(o.port))
	if err != nil {
		return nil, err
	}
	sink, err := net.ListenPacket("udp", o.at(o.port+1))
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { l.Close(); echo.Close(); sink.Close() })
	if err := sink.(*net.UDPConn).SetReadBuffer(8 << 20); err != nil {
		return nil, err
	}
	var arrived atomic.Uint64
	go echoPackets(echo)
	go countPackets(sink, &arrived)
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return figures{"packets": float64(arrived.Load())}, nil
		}
		if err != nil {
			return nil, err
		}
		go answer(c, &arrived)
	}
}

func answer(c net.Conn, arrived *atomic.Uint64) {
	defer c.Close()
	first := make([]byte, 1)
	if _, err := io.ReadFull(c, first); err != nil {
		return
	}
	switch first[0] {
	case askSink:
		b, sum := make([]byte, chunk), uint64(0)
		for {
			n, err := c.Read(b)
			sum += uint64(n)
			if err != nil {
				break
			}
		}
		c.Write(binary.BigEndian.AppendUint64(nil, sum))
	case askEcho:
		b := make([]byte, 64<<10)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			if _, err := c.Write(b[:n]); err != nil {
				return
			}
		}
	case askCount:
		c.Write(binary.BigEndian.AppendUint64(nil, arrived.Load()))
	}
}

func echoPackets(p net.PacketConn) {
	b := make([]byte, 64<<10)
	for {
		n, from, err := p.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			p.WriteTo(b[:n], from) // one that is lost is the caller's to notice
		}
	}
}

func countPackets(p net.PacketConn, arrived *atomic.Uint64) {
	batch := messages(64, 2048)
	c := ipv4.NewPacketConn(p) // the calls for batches are the same for IPv6
	for {
		n, err := c.ReadBatch(batch, 0)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		arrived.Add(uint64(n))
	}
}

func messages(n, size int) []ipv4.Message {
	all := make([]ipv4.Message, n)
	for i := range all {
		all[i].Buffers = [][]byte{make([]byte, size)}
	}
	return all
}

// ask opens a connection and says what it is for.
func ask(ctx context.Context, o options, what byte) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", o.at(o.port))
	if err != nil {
		return nil, err
	}
	if _, err := c.Write([]byte{what}); err != nil {
		c.Close()
		return nil, fmt.Errorf("ask %s: %w", o.address, err)
	}
	return c, nil
}

func readCount(c net.Conn) (uint64, error) {
	b := make([]byte, 8)
	_, err := io.ReadFull(c, b)
	return binary.BigEndian.Uint64(b), err
}
