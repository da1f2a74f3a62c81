// Command writer writes its name and the time, as seconds since the machine
// started, into a file of a directory that several may share: who reads it sees
// whether two wrote at the same time.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	name := fmt.Sprintf("%d", time.Now().UnixNano()) // a container started again is another writer
	f, err := os.OpenFile("/data/lines", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGTERM)
	tick := time.NewTicker(50 * time.Millisecond)
	host, _ := os.Hostname()
	for {
		var t unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t)
		if _, err := fmt.Fprintf(f, "%s-%s %d\n", host, name, t.Nano()/1e6); err != nil {
			os.Exit(1)
		}
		select {
		case <-ends:
			return
		case <-tick.C:
		}
	}
}
