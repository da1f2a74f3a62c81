package driver

import (
	"errors"
	"fmt"

	"clocker.io/clocker/netplugin/segment"
)

// routed is the kind of segment of networks that name none.
const routed = "routed"

// segmentOf is the segment of a network's kind.
func (d *Driver) segmentOf(n segment.Network) (segment.Segment, error) {
	kind := n.Kind
	if kind == "" {
		kind = routed
	}
	s, ok := d.Segments[kind]
	if !ok {
		return nil, fmt.Errorf("network %s is %s, which this version does not know", n.ID, kind)
	}
	return s, nil
}

// adopt hands each segment what an earlier run left of its kind.
func (d *Driver) adopt(networks []segment.Network, endpoints []segment.Endpoint) (gone []segment.Endpoint, err error) {
	var errs []error
	for name, s := range d.Segments {
		var ns []segment.Network
		var es []segment.Endpoint
		for _, n := range networks {
			if x, err := d.segmentOf(n); err == nil && x == s {
				ns = append(ns, n)
			}
		}
		for _, e := range endpoints {
			if x, err := d.segmentOf(e.Network); err == nil && x == s {
				es = append(es, e)
			}
		}
		g, err := s.Adopt(ns, es)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
		gone = append(gone, g...)
	}
	return gone, errors.Join(errs...)
}

// attach links an endpoint by the segment of its network.
func (d *Driver) attach(e segment.Endpoint) error {
	s, err := d.segmentOf(e.Network)
	if err != nil {
		return err
	}
	return s.Attach(e)
}

// detach takes an endpoint away.
func (d *Driver) detach(e segment.Endpoint) {
	if s, err := d.segmentOf(e.Network); err == nil {
		s.Detach(e)
	}
}

// vanished reports the endpoints of all segments whose links are gone.
func (d *Driver) vanished() (gone []segment.Endpoint, err error) {
	for _, s := range d.Segments {
		g, err := s.Gone()
		if err != nil {
			return nil, err
		}
		gone = append(gone, g...)
	}
	return gone, nil
}
