package routed

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"clocker.io/clocker/netplugin/segment"
)

// leaving is the group of links that are about to go. The kernel removes all
// links of a group at once: while one goes it lets nobody make another, for
// 16 ms each, or for as long together.
const leaving = Group<<8 + 1

const (
	// gatherLinks is how long links are gathered before they are removed.
	gatherLinks = 20 * time.Millisecond
	// leastWait and mostWait are between tries to remove what would not go.
	leastWait, mostWait = 50 * time.Millisecond, 5 * time.Second
)

// Detach forgets the endpoint and removes its link aside. Its route goes with
// the link, unless another endpoint has taken the address over.
func (s *Segment) Detach(e segment.Endpoint) {
	s.mu.Lock()
	s.forget(e.ID)
	s.mu.Unlock()
	s.removeLink(segment.LinkName(e.ID))
}

// removeLink removes a link in the background, trying again until it is gone.
func (s *Segment) removeLink(name string) {
	s.mu.Lock()
	s.detaching[name] = true
	first := len(s.detaching) == 1
	s.mu.Unlock()
	if first {
		go s.reap()
	}
}

// reap removes links until none is left to be removed.
func (s *Segment) reap() {
	for wait := gatherLinks; ; {
		time.Sleep(wait) //nolint:forbidigo // links are gathered; and the kernel does not say when it will let go of one
		s.mu.Lock()
		var names []string
		for name := range s.detaching {
			names = append(names, name)
		}
		s.mu.Unlock()
		left := s.removeLinks(names)
		s.mu.Lock()
		for _, name := range names {
			if left[name] == nil {
				delete(s.detaching, name)
			}
		}
		done := len(s.detaching) == 0
		s.mu.Unlock()
		if done {
			return
		}
		wait = gatherLinks
		for name, err := range left {
			s.Log.Warn("link not removed, trying again", "link", name, "error", err)
			wait = min(max(leastWait, 2*wait), mostWait)
		}
	}
}

// removeLinks removes links, and returns those that would not go.
func (s *Segment) removeLinks(names []string) map[string]error {
	left := map[string]error{}
	together := map[string]netlink.Link{}
	for _, name := range names {
		// By its index from here on: with the name of a link that is gone the
		// kernel is asked about none, and calls that invalid.
		l, err := s.Handle.LinkByName(name)
		if err == nil {
			together[name] = l
			err = s.Handle.LinkSetGroup(l, leaving)
		}
		if err == nil || missing(err) {
			continue
		}
		left[name] = err
	}
	if len(together) > 1 && len(left) == 0 && removeGroup(leaving) == nil {
		return nil
	}
	// One by one goes everywhere.
	for name, l := range together {
		delete(left, name)
		if err := s.Handle.LinkDel(l); err != nil && !missing(err) {
			left[name] = err
		}
	}
	return left
}

// removeGroup removes all links of a group, in the namespace that the process
// is in.
func removeGroup(group uint32) error {
	r := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
	r.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	r.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
	if _, err := r.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("remove links: %w", err)
	}
	return nil
}

func missing(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound) || errors.Is(err, syscall.ENODEV)
}
