package driver

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"clocker.io/clocker/netplugin/policy"
)

// The options that `docker network create -o` takes.
const (
	optNetwork = "clocker.network"
	optEgress  = "clocker.egress"
	optMTU     = "clocker.mtu"
	optSegment = "clocker.segment"
	optCarrier = "clocker.carrier"
	// optUnfiltered opens the network to whoever has a route.
	optUnfiltered = "clocker.unfiltered"
	// optEngineMTU is the engine's own name for the MTU.
	optEngineMTU = "com.docker.network.driver.mtu"
)

// The keys of the options in the engine's calls.
const (
	keyGeneric  = "com.docker.network.generic"
	keyIPv4     = "com.docker.network.enable_ipv4"
	keyIPv6     = "com.docker.network.enable_ipv6"
	keyInternal = "com.docker.network.internal"
	keyPortMap  = "com.docker.network.portmap"
)

// Egress values; see record.Network.
const (
	egressPlugin = "plugin"
	egressEngine = "engine"
)

// options are a network's options, checked. Empty fields were not given.
type options struct {
	network  string
	egress   string
	mtu      int
	segment  string
	carrier  string
	internal bool
	// unfiltered is "true" or "false" when it was given.
	unfiltered string
	// broadcast is, too.
	broadcast string
	// noIPv4 and ipv6 are the families, as far as the engine tells them.
	noIPv4, ipv6 bool
}

var known = []string{optBroadcast, optCarrier, optEgress, optMTU, optNetwork, optSegment, optUnfiltered}

// parseOptions reads the options of a network to be made. It reports
// everything that is wrong at once.
func parseOptions(all map[string]any) (options, error) {
	o := options{internal: truth(all[keyInternal])}
	var errs []error
	o.ipv6 = truth(all[keyIPv6])
	if v, ok := all[keyIPv4]; ok {
		o.noIPv4 = !truth(v)
	}
	if o.noIPv4 && !o.ipv6 {
		errs = append(errs, errors.New("a network without IPv4 needs IPv6: add --ipv6"))
	}
	generic, err := texts(all[keyGeneric])
	errs = append(errs, err)
	for _, name := range slices.Sorted(maps.Keys(generic)) {
		errs = append(errs, o.set(name, generic[name]))
	}
	errs = append(errs, o.checkBridged())
	return o, errors.Join(errs...)
}

func (o *options) set(name, value string) error {
	switch name {
	case optNetwork:
		o.network = value
	case optEgress:
		o.egress = value
		return oneOf(name, value, egressPlugin, egressEngine)
	case optSegment:
		o.segment = value
		return oneOf(name, value, "routed", "bridged")
	case optCarrier:
		o.carrier = value
		return oneOf(name, value, "auto", "direct", "vxlan", "wireguard")
	case optUnfiltered:
		o.unfiltered = value
		return oneOf(name, value, "true", "false")
	case optMTU, optEngineMTU:
		n, err := strconv.Atoi(value)
		// RFC 791 asks for 68 bytes, RFC 8200 for 1280.
		if err != nil || n < 68 || n > 65535 {
			return fmt.Errorf("option %s=%s: an MTU is a number of bytes from 68 to 65535", name, value)
		}
		o.mtu = n
	default:
		if ok, err := o.setBridged(name, value); ok {
			return err
		}
		if strings.HasPrefix(name, "com.docker.network.") && !strings.HasPrefix(name, "com.docker.network.bridge.") {
			return nil // the engine's own affair
		}
		return fmt.Errorf("option %s is not known: this driver has %s", name, strings.Join(known, ", "))
	}
	return nil
}

// oneOf checks that a value is one of those that there are.
func oneOf(name, value string, available ...string) error {
	if slices.Contains(available, value) {
		return nil
	}
	return fmt.Errorf("option %s=%s is not known: available is %s", name, value, strings.Join(available, ", "))
}

// truth reads a boolean as engines send it: as such, or as text.
func truth(v any) bool {
	switch b := v.(type) {
	case bool:
		return b
	case string:
		t, _ := strconv.ParseBool(b)
		return t
	}
	return false
}

// texts reads the options that the user gave, which are text.
func texts(v any) (map[string]string, error) {
	if v == nil {
		return nil, nil
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("read options: %T is not a map", v)
	}
	out := make(map[string]string, len(m))
	for k, x := range m {
		s, ok := x.(string)
		if !ok {
			return nil, fmt.Errorf("read option %s: %v is not text", k, x)
		}
		out[k] = s
	}
	return out, nil
}

// binding is a published port as engines send it. HostPort 0 means any; else
// one of HostPort to HostPortEnd.
type binding struct {
	Proto       uint8
	Port        uint16
	HostIP      string
	HostPort    uint16
	HostPortEnd uint16
}

// bindings reads the published ports from the options of CreateEndpoint, Join
// or ProgramExternalConnectivity. ok is false when the options do not say.
func bindings(all map[string]any) (bs []binding, ok bool, err error) {
	v, ok := all[keyPortMap]
	if !ok || v == nil {
		return nil, false, nil
	}
	b, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(b, &bs)
	}
	if err != nil {
		return nil, false, fmt.Errorf("read published ports: %w", err)
	}
	return bs, true, nil
}

// candidates are the ports of the host that a binding may get, in order; port
// 0 stands for any.
func (b binding) candidates() ([]policy.Port, error) {
	p := policy.Port{Protocol: b.Proto, Port: b.Port, HostPort: b.HostPort}
	if b.HostIP != "" {
		a, err := netip.ParseAddr(b.HostIP)
		if err != nil {
			return nil, fmt.Errorf("publish port %d: %w", b.Port, err)
		}
		if a.Zone() != "" {
			return nil, fmt.Errorf("publish port %d on %s: an address with a zone is not one of the host as a whole", b.Port, a)
		}
		p.HostIP = a.Unmap()
	}
	out := []policy.Port{p}
	for n := int(b.HostPort) + 1; b.HostPort != 0 && n <= int(b.HostPortEnd); n++ {
		p.HostPort = uint16(n)
		out = append(out, p)
	}
	return out, nil
}
