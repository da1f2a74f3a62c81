package underlay

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
)

// settle is how long a burst of changes is waited for.
const settle = 100 * time.Millisecond

// Quiet reports whether changes of a link, by its name, are no matter of the
// underlay: containers' links come and go all the time.
type Quiet func(link string) bool

// Watch returns a channel that gets a value, until ctx ends, soon after links,
// addresses or routes of the host have changed, or may have without the kernel
// telling. quiet links and routes that are ours are left out.
func Watch(ctx context.Context, quiet Quiet, ours Ours, log *slog.Logger) <-chan struct{} {
	out := make(chan struct{}, 1)
	events := make(chan struct{}, 1)
	go func() {
		for ctx.Err() == nil {
			watch(ctx, quiet, ours, func() { signal(events) }, log)
			signal(events)
			wait(ctx, time.Second)
		}
	}()
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-events:
			}
			wait(ctx, settle)
			signal(out)
		}
	}()
	return out
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// watch passes changes on until the kernel's messages cannot be read any more.
func watch(ctx context.Context, quiet Quiet, ours Ours, changed func(), log *slog.Logger) {
	done := make(chan struct{})
	defer close(done)
	failed := make(chan error, 3)
	onError := func(err error) {
		select {
		case failed <- err:
		default:
		}
	}
	links, addrs, routes := make(chan netlink.LinkUpdate, 64), make(chan netlink.AddrUpdate, 64), make(chan netlink.RouteUpdate, 64)
	// Their readers end only when somebody takes what they have read.
	defer func() { go drain(links); go drain(addrs); go drain(routes) }()
	for _, start := range []func() error{
		func() error {
			return subscribed(links, netlink.LinkSubscribeWithOptions(links, done, netlink.LinkSubscribeOptions{ErrorCallback: onError}))
		},
		func() error {
			return subscribed(addrs, netlink.AddrSubscribeWithOptions(addrs, done, netlink.AddrSubscribeOptions{ErrorCallback: onError}))
		},
		func() error {
			return subscribed(routes, netlink.RouteSubscribeWithOptions(routes, done, netlink.RouteSubscribeOptions{ErrorCallback: onError}))
		},
	} {
		if err := start(); err != nil {
			onError(err)
		}
	}
	names := map[int]string{}
	for {
		select {
		case <-ctx.Done():
			return
		case err := <-failed:
			log.Debug("host's links are not watched, starting again", "error", err)
			return
		case u, ok := <-links:
			if !ok {
				return
			}
			a := u.Link.Attrs()
			names[a.Index] = a.Name
			if !quiet(a.Name) {
				changed()
			}
		case u, ok := <-addrs:
			if !ok {
				return
			}
			if !quiet(names[u.LinkIndex]) {
				changed()
			}
		case u, ok := <-routes:
			if !ok {
				return
			}
			if !ours(int(u.Protocol), names[u.LinkIndex]) {
				changed()
			}
		}
	}
}

// subscribed closes the channel of a subscription that was not made, as its
// reader would have.
func subscribed[T any](c chan T, err error) error {
	if err != nil {
		close(c)
	}
	return err
}

func drain[T any](c <-chan T) {
	for range c { //nolint:revive // nothing is done with them
	}
}

// HasPrefix returns a [Quiet] of links whose names begin so.
func HasPrefix(prefixes ...string) Quiet {
	return func(link string) bool {
		for _, p := range prefixes {
			if strings.HasPrefix(link, p) {
				return true
			}
		}
		return false
	}
}
