package follow

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// Signals makes interrupts out of SIGINT and SIGTERM, and of the end of ctx,
// by which the docker CLI tells a plugin that it was interrupted itself: that
// counts as the first, whatever signal comes with it. The caller calls stop.
func Signals(ctx context.Context) (in Interrupts, stop func()) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	in, end := count(ctx.Done(), signals)
	return in, func() {
		signal.Stop(signals)
		end()
	}
}

// count makes interrupts out of signals and the closing of asked, until end is
// called.
func count(asked <-chan struct{}, signals <-chan os.Signal) (in Interrupts, end func()) {
	first, second := make(chan struct{}), make(chan struct{})
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		n, open := 0, true
		for {
			select {
			case <-quit:
				return
			case <-asked:
				asked = nil
			case <-signals:
				if n++; n == 2 {
					close(second)
				}
			}
			if open {
				open = false
				close(first)
			}
		}
	})
	return Interrupts{First: first, Second: second}, func() {
		close(quit)
		wg.Wait()
	}
}
