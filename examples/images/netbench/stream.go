package main

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// throughput sends on all streams for the time, waits until everything has
// arrived, and counts what the server says arrived.
func throughput(ctx context.Context, o options) (figures, error) {
	var conns []net.Conn
	for range o.streams {
		c, err := ask(ctx, o, askSink)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		conns = append(conns, c)
	}
	var sum atomic.Uint64
	began := time.Now()
	end := began.Add(o.length)
	var g errgroup.Group
	for _, c := range conns {
		g.Go(func() error {
			if err := c.SetDeadline(end.Add(10 * time.Second)); err != nil {
				return err
			}
			b := make([]byte, chunk)
			for time.Now().Before(end) {
				if _, err := c.Write(b); err != nil {
					return err
				}
			}
			if err := c.(*net.TCPConn).CloseWrite(); err != nil {
				return err
			}
			n, err := readCount(c)
			sum.Add(n)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	took := time.Since(began)
	return figures{"bits_per_second": float64(sum.Load()) * 8 / took.Seconds(), "seconds": took.Seconds()}, nil
}

// connections opens one connection after the other on each of the streams,
// sends a byte each way, and resets it, so that no port is kept in TIME-WAIT.
func connections(ctx context.Context, o options) (figures, error) {
	end := time.Now().Add(o.length)
	times := make([][]time.Duration, o.streams)
	var g errgroup.Group
	for i := range o.streams {
		g.Go(func() error {
			b := make([]byte, 1)
			for time.Now().Before(end) {
				began := time.Now()
				c, err := ask(ctx, o, askEcho)
				if err != nil {
					return err
				}
				if _, err = c.Write(b); err == nil {
					_, err = c.Read(b)
				}
				if err == nil {
					err = c.(*net.TCPConn).SetLinger(0)
				}
				c.Close()
				if err != nil {
					return err
				}
				times[i] = append(times[i], time.Since(began))
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var all []time.Duration
	for _, t := range times {
		all = append(all, t...)
	}
	f := percentiles(all)
	f["per_second"] = f["count"] / o.length.Seconds()
	return f, nil
}
