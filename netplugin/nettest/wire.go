package nettest

import (
	"sync"

	"golang.org/x/sys/unix"
)

// Wire sees the frames that pass an interface.
type Wire struct {
	mu    sync.Mutex
	count int // guarded by mu
}

// Listen counts the frames on an interface that match, both ways, until the
// test ends.
func (n *Namespace) Listen(link string, match func(frame []byte) bool) *Wire {
	n.t.Helper()
	w := &Wire{}
	var fd int
	n.Do(func() {
		const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8 // in network order
		fd = must(unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all))(n.t)
		check(n.t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: must(n.Handle.LinkByName(link))(n.t).Attrs().Index}))
	})
	// It wakes up to see that the test is over.
	check(n.t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}))
	over, done := make(chan struct{}), make(chan struct{})
	n.t.Cleanup(func() {
		close(over)
		<-done
		unix.Close(fd) //nolint:errcheck // the test is over
	})
	go func() {
		defer close(done)
		b := make([]byte, 1<<16)
		for {
			select {
			case <-over:
				return
			default:
			}
			k, _, err := unix.Recvfrom(fd, b, 0)
			if err == nil && match(b[:k]) {
				w.mu.Lock()
				w.count++
				w.mu.Unlock()
			}
		}
	}()
	return w
}

// Count is how many frames have matched.
func (w *Wire) Count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count
}
