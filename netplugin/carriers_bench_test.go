package main

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/netplugin/nettest"
)

// BenchmarkCarriers sends between two hosts' containers by each carrier, and
// between the hosts themselves ("raw"), all over one pair of links and within
// one run, so that they can be compared.
func BenchmarkCarriers(b *testing.B) {
	w := nettest.NewWorld(b, plugin)
	l := w.FirstLink(1500)
	h1, h2 := l.AddHost(false), l.AddHost(false)
	all := networksAcross(b, w, h1, h2, map[string]int{"direct": 1500, "vxlan": 1450, "wireguard": 1440})
	whole(b, all)
	type path struct {
		name     string
		from, to *nettest.Namespace
		address  string
	}
	paths := []path{{"raw", h1.Namespace, h2.Namespace, h2.Address}}
	for _, name := range []string{"direct", "vxlan", "wireguard"} {
		x := all[index(all, name)]
		paths = append(paths, path{name, x.a.Namespace, x.b.Namespace, x.b.Address})
	}
	for _, p := range paths {
		sink := listen(b, p.to, p.address+":90", func(c net.Conn) { _, _ = io.CopyBuffer(onlyWriter{io.Discard}, onlyReader{c}, make([]byte, much)) })
		echo := listen(b, p.to, p.address+":91", func(c net.Conn) { _, _ = io.Copy(c, c) })
		for name, streams := range map[string]int{"1stream": 1, "8streams": 8} {
			b.Run(p.name+"/"+name, func(b *testing.B) { stream(b, p.from, sink, streams) })
		}
		b.Run(p.name+"/roundtrip", func(b *testing.B) {
			c := dial(b, p.from, echo)
			defer c.Close()
			one := make([]byte, 1)
			for b.Loop() {
				_, err := c.Write(one)
				assert.NilError(b, err)
				_, err = io.ReadFull(c, one)
				assert.NilError(b, err)
			}
		})
	}
}

// What goes through these cannot be spliced in the kernel.
type onlyWriter struct{ io.Writer }

type onlyReader struct{ io.Reader }

func listen(b *testing.B, n *nettest.Namespace, address string, serve func(net.Conn)) string {
	b.Helper()
	var l net.Listener
	n.Do(func() {
		var err error
		l, err = net.Listen("tcp", address)
		assert.NilError(b, err)
	})
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); serve(c) }()
		}
	}()
	return l.Addr().String()
}

func dial(b *testing.B, n *nettest.Namespace, address string) net.Conn {
	b.Helper()
	var c net.Conn
	n.Do(func() {
		var err error
		c, err = net.DialTimeout("tcp", address, 5*time.Second)
		assert.NilError(b, err)
	})
	return c
}

// stream sends a mebibyte each time, over so many connections at once.
func stream(b *testing.B, from *nettest.Namespace, to string, streams int) {
	b.Helper()
	b.SetBytes(much)
	work := make(chan struct{})
	var wg sync.WaitGroup
	for range streams {
		c := dial(b, from, to)
		wg.Go(func() {
			defer c.Close()
			data := make([]byte, much)
			for range work {
				if _, err := c.Write(data); err != nil {
					b.Error(err)
				}
			}
		})
	}
	b.ResetTimer()
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	wg.Wait()
}
