package driver

import (
	"errors"
	"fmt"
	"maps"
	"strings"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/record"
)

const (
	// optBroadcast is an option of a network, kept in its record under the
	// same name.
	optBroadcast = "clocker.broadcast"
	// optDriver names another driver, which this one cannot hand over to.
	optDriver = "clocker.driver"
)

const bridged = "bridged"

// setBridged takes the options that are about bridged networks and other
// drivers; ok is false for any other.
func (o *options) setBridged(name, value string) (ok bool, err error) {
	switch name {
	case optBroadcast:
		o.broadcast = value
		return true, oneOf(name, value, "true", "false")
	case optDriver:
		if value == "" || strings.ContainsAny(value, " \t\n") {
			return true, fmt.Errorf("option %s=%q: it takes the name of a network driver", name, value)
		}
		return true, fmt.Errorf("option %s=%s: an engine cannot be told by this driver to use another one; "+
			"docker clocker network create --driver %s NAME makes the network with that driver on every host, "+
			"with addresses of the fleet", name, value, value)
	}
	return false, nil
}

// checkBridged says what of the options does not go together.
func (o options) checkBridged() error {
	var errs []error
	if o.broadcast == "true" && o.segment == routed || o.broadcast == "true" && o.segment == "" && o.network == "" {
		errs = append(errs, fmt.Errorf("option %s=true: only bridged networks have broadcasts: add -o %s=%s", optBroadcast, optSegment, bridged))
	}
	if o.segment == bridged && o.carrier == "wireguard" {
		errs = append(errs, fmt.Errorf("options %s=%s and %s=wireguard: frames cannot be encrypted; "+
			"a routed network can be carried by wireguard", optSegment, bridged, optCarrier))
	}
	return errors.Join(errs...)
}

// applyBridged puts what is about bridged networks into a network that is
// being made as routed.
func (o options) applyBridged(n *record.Network) {
	if o.broadcast == "true" {
		n.Options = maps.Clone(n.Options)
		if n.Options == nil {
			n.Options = map[string]string{}
		}
		n.Options[optBroadcast] = o.broadcast
	}
	if o.segment == bridged && n.Segment != bridged && n.MTU != 0 && o.mtu == 0 {
		n.MTU += registry.Overhead(registry.Way(n.Segment, n.Carrier)) - registry.Overhead(registry.Way(o.segment, o.carrier))
	}
}
