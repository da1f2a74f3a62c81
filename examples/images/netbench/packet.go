package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/net/ipv4"
)

// roundTrips sends a byte, waits for it to come back, and so on.
func roundTrips(ctx context.Context, o options) (figures, error) {
	var c net.Conn
	var err error
	if o.protocol == "udp" {
		c, err = new(net.Dialer).DialContext(ctx, "udp", o.at(o.port))
	} else {
		c, err = ask(ctx, o, askEcho)
	}
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var times []time.Duration
	b := make([]byte, 1)
	for end := time.Now().Add(o.length); time.Now().Before(end); {
		began := time.Now()
		if err := c.SetDeadline(began.Add(time.Second)); err != nil {
			return nil, err
		}
		if _, err := c.Write(b); err != nil {
			return nil, err
		}
		if _, err := c.Read(b); err != nil {
			return nil, err
		}
		times = append(times, time.Since(began))
	}
	return percentiles(times), nil
}

// packets sends UDP packets as fast as it can and asks the server how many it
// got.
func packets(ctx context.Context, o options) (figures, error) {
	p, err := new(net.Dialer).DialContext(ctx, "udp", o.at(o.port+1))
	if err != nil {
		return nil, err
	}
	defer p.Close()
	count := func() (uint64, error) {
		c, err := ask(ctx, o, askCount)
		if err != nil {
			return 0, err
		}
		defer c.Close()
		return readCount(c)
	}
	before, err := count()
	if err != nil {
		return nil, err
	}
	batch, sent := messages(64, o.size), 0
	c := ipv4.NewPacketConn(p.(net.PacketConn))
	began := time.Now()
	for end := began.Add(o.length); time.Now().Before(end); {
		n, err := c.WriteBatch(batch, 0)
		if err != nil {
			return nil, err
		}
		sent += n
	}
	took := time.Since(began)
	after, err := count()
	if err != nil {
		return nil, err
	}
	arrived := float64(after - before)
	return figures{
		"per_second": arrived / took.Seconds(), "sent_per_second": float64(sent) / took.Seconds(),
		"lost_share": 1 - arrived/float64(sent),
	}, nil
}

// ping sends numbered packets at an interval and counts which come back. It
// ends when the time is over or it is interrupted; both are as good. A server
// that is away, or a way that is refused, counts as lost packets.
func ping(ctx context.Context, o options) (figures, error) {
	if o.length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.length)
		defer cancel()
	}
	p, err := net.Dial("udp", o.at(o.port))
	if err != nil {
		return nil, err
	}
	defer p.Close()
	var got atomic.Uint64
	var last, gap atomic.Int64
	last.Store(int64(time.Since(epoch)))
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 16)
		seen := uint64(0)
		for {
			n, err := p.Read(b)
			if n == 8 {
				if k := binary.BigEndian.Uint64(b); k > seen {
					seen = k
					got.Add(1)
					now := int64(time.Since(epoch))
					gap.Store(max(gap.Load(), now-last.Swap(now)))
				}
			} else if ctx.Err() != nil && err != nil {
				return
			}
		}
	}()
	tick := time.NewTicker(o.interval)
	defer tick.Stop()
	sent := uint64(0)
	for ctx.Err() == nil {
		sent++
		p.Write(binary.BigEndian.AppendUint64(nil, sent)) // one that cannot be sent is a lost one
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	ended := int64(time.Since(epoch))
	if err := p.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		return nil, fmt.Errorf("wait for the last: %w", err)
	}
	<-done
	f := figures{"sent": float64(sent), "lost": float64(sent - got.Load())}
	f["longest_gap_ms"] = float64(max(gap.Load(), ended-last.Load())) / float64(time.Millisecond)
	return f, nil
}

// epoch is a moment to count from, by the monotonic clock.
var epoch = time.Now()
