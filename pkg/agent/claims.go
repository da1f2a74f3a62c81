package agent

import (
	"errors"
	"fmt"

	"clocker.io/clocker/pkg/engine"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
)

// socket is a port of the host.
type socket struct {
	IP       string
	Port     uint16
	Protocol string
}

func socketOf(p model.Port) socket { return socket{p.HostIP, p.HostPort, p.Protocol} }

// meets reports whether two sockets cannot be open at the same time.
func (s socket) meets(o socket) bool {
	return s.Port == o.Port && s.Protocol == o.Protocol && (s.IP == o.IP || any4(s.IP) || any4(o.IP))
}

func any4(ip string) bool { return ip == "" || ip == "0.0.0.0" || ip == "::" }

func (s socket) String() string {
	if any4(s.IP) {
		return fmt.Sprintf("%s/%d", s.Protocol, s.Port)
	}
	return fmt.Sprintf("%s/%s:%d", s.Protocol, s.IP, s.Port)
}

// claims are what other tasks of this host say to the ports that one wants.
type claims struct {
	// held are sockets that the replica's own former container has: they
	// are given up before the new one starts.
	held []socket
	// err says which port another task has; fatal that it will keep it.
	err   error
	fatal bool
}

// claim asks the host's own assignments and containers. A port that the
// network plugin publishes is a rule and no open socket, so trying to open it
// does not tell.
func claim(a assigned, all map[string]assigned, containers []engine.Container) claims {
	var c claims
	for _, p := range a.Container.Ports {
		if p.HostPort == 0 {
			continue
		}
		s := socketOf(p)
		for _, b := range all {
			if b.Task == a.Task || !hasSocket(b.Container.Ports, s) {
				continue
			}
			if b.App == a.App && b.Service == a.Service && b.Slot == a.Slot {
				c.held = append(c.held, s)
			} else if b.Phase != record.PhasePrepare || before(b, a) {
				c.err = errors.Join(c.err, fmt.Errorf("port %s is taken by %s of application %s", s, b.Container.Name, b.App))
				c.fatal = true
			}
		}
		for _, k := range containers {
			if _, still := all[k.Labels[engine.LabelTask]]; still || !k.Up() || !hasSocket(k.Ports, s) {
				continue
			}
			if k.Labels[engine.LabelApp] == a.App && k.Labels[engine.LabelService] == a.Service && k.Labels[engine.LabelSlot] == fmt.Sprint(a.Slot) {
				c.held = append(c.held, s)
			} else {
				c.err = errors.Join(c.err, fmt.Errorf("port %s is still held by %s, which is being removed", s, k.Name))
			}
		}
	}
	return c
}

func hasSocket(ps []model.Port, s socket) bool {
	for _, p := range ps {
		if p.HostPort != 0 && socketOf(p).meets(s) {
			return true
		}
	}
	return false
}

// before says which of two tasks that are being prepared asked first.
func before(b, a assigned) bool {
	if !b.CreatedAt.Equal(a.CreatedAt) {
		return b.CreatedAt.Before(a.CreatedAt)
	}
	return b.Task < a.Task
}
