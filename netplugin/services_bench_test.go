package main

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/netplugin/nettest"
	"clocker.io/clocker/pkg/record"
)

// BenchmarkConnections makes connections to a replica on another host, by its
// own address and by its service's, one after the other.
func BenchmarkConnections(b *testing.B) {
	w := nettest.NewWorld(b, plugin)
	h1, h2 := w.AddHost(), w.AddHost()
	red := network(b, w, "red", "plugin", false)
	vip := virtual(b, w, red, "web")
	on1, on2 := h1.CreateNetwork(red, nil), h2.CreateNetwork(red, nil)
	caller, replica := on1.Run(), on2.Run()
	var l net.Listener
	replica.Do(func() {
		var err error
		l, err = net.Listen("tcp", ":80")
		assert.NilError(b, err)
	})
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	publish(b, w, replica, red.ID, "web", "web-1")
	h1.Eventually(5*time.Second, "the service answers", func() error {
		s, err := open(caller.Namespace, "tcp4", vip+":80")
		if err == nil {
			s.Close()
		}
		return err
	})
	for _, to := range []struct{ name, address string }{{"direct", replica.Address}, {"service", vip}} {
		b.Run(to.name, func(b *testing.B) {
			caller.Do(func() {
				for b.Loop() {
					c, err := net.Dial("tcp4", to.address+":80")
					if err != nil {
						b.Fatal(err)
					}
					// A reset leaves nothing that waits, so that ports do not run out.
					_ = c.(*net.TCPConn).SetLinger(0)
					c.Close()
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "conns/s")
		})
	}
}

// BenchmarkReplicaChanges takes one replica of a thousand away and brings it
// back, and measures until the host's table knows.
func BenchmarkReplicaChanges(b *testing.B) {
	w := nettest.NewWorld(b, plugin)
	h1 := w.AddHost()
	red := network(b, w, "red", "plugin", false)
	vip := virtual(b, w, red, "web")
	h1.CreateNetwork(red, nil)
	k := w.Store.Keys
	first := netip.MustParsePrefix(red.Subnet).Addr().As4()
	put := func(i int) {
		a := first
		a[2], a[3] = a[2]+4+byte(i/200), byte(i%200)+10
		r := record.NameRecord{App: "app", Service: "web", Replica: fmt.Sprint("web-", i), Networks: map[string]record.NamedAddress{red.ID: {Address: netip.AddrFrom4(a).String()}}}
		_, err := w.Store.Txn().Put(k.Name("elsewhere", fmt.Sprint(i)), r).Commit(b.Context())
		assert.NilError(b, err)
	}
	count := func(n int) {
		h1.Eventually(10*time.Second, fmt.Sprint(n, " replicas"), func() error {
			if elements := strings.Count(h1.Run("nft", "list", "map", "inet", "clocker-lb", "replicas"), vip); elements != n {
				return fmt.Errorf("%d of %d", elements, n)
			}
			return nil
		})
	}
	started := time.Now()
	for i := range 1000 {
		put(i)
	}
	count(1000)
	took := time.Since(started)
	for b.Loop() {
		_, err := w.Store.Txn().Delete(k.Name("elsewhere", "0")).Commit(b.Context())
		assert.NilError(b, err)
		count(999)
		put(0)
		count(1000)
	}
	b.ReportMetric(float64(took.Milliseconds()), "ms/1000-names")
}
