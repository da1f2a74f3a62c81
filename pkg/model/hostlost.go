package model

import (
	"fmt"
	"time"
)

// What becomes of a service that writes to data which outlives it, when its
// host is lost: it waits for its host, or is replaced once it has certainly
// stopped there.
const (
	LostWait    = "wait"
	LostReplace = "replace"
)

// A fence is how long a host runs what may be replaced elsewhere after etcd has
// vouched for it last.
const (
	DefaultFence = 15 * time.Second
	// MinFence leaves time to find another controller, MaxFence bounds how long
	// nobody does the work.
	MinFence = 5 * time.Second
	MaxFence = 10 * time.Minute
)

// HostLost says what becomes of a service when its host is lost. The zero value
// is the default: what writes to nothing is replaced, what writes to data waits.
type HostLost struct {
	// Then is LostWait, LostReplace or empty.
	Then string `json:"then,omitempty"`
	// Fence is 0 where the file says nothing.
	Fence    time.Duration `json:"fence,omitempty"`
	Position Position      `json:"position,omitzero"`
}

// Fence is how long a replica may run on without etcd, when it is to be replaced
// although it writes to data that outlives it; 0 when it is not.
func (s *Service) Fence() time.Duration {
	own, shared := s.Data()
	switch {
	case s.HostLost.Then != LostReplace || !own && !shared:
		return 0
	case s.HostLost.Fence == 0:
		return DefaultFence
	}
	return s.HostLost.Fence
}

// Stays says what stays behind on a lost host although the service is replaced
// elsewhere, or "".
func (s *Service) Stays() string {
	if s.Fence() == 0 {
		return ""
	}
	for _, m := range s.Mounts {
		if m.Writes() && !m.Shared {
			return m.Source
		}
	}
	return ""
}

// hostLost checks what is said of lost hosts.
func (c *checker) hostLost(e *Entity) {
	l := e.Service.HostLost
	at := func(path, remedy, format string, args ...any) {
		c.at(e, l.Position, ".x-clocker."+path, remedy, format, args...)
	}
	own, shared := e.Service.Data()
	switch {
	case l.Then != "" && l.Then != LostWait && l.Then != LostReplace:
		at("on-host-lost", LostWait+" or "+LostReplace, "%q says nothing about a lost host", l.Then)
	case l.Then == LostWait && !own && !shared:
		at("on-host-lost", "leave it out: only what writes to data waits for its host", "the service writes to no data that outlives it")
	case l.Fence != 0 && l.Then != LostReplace:
		at("fence", "write on-host-lost: replace beside it, or leave it out", "a fence is for what is replaced when its host is lost")
	case l.Fence != 0 && !own && !shared:
		at("fence", "leave it out: what writes to nothing is replaced without one", "the service writes to no data that outlives it")
	}
	if l.Fence != 0 && (l.Fence < MinFence || l.Fence > MaxFence) {
		at("fence", fmt.Sprintf("%s to %s", MinFence, MaxFence), "a fence of %s is out of bounds", l.Fence)
	}
}
