package compose

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/source/document"
)

// hostOnly are drivers of the engine that a fleet's network cannot have.
var hostOnly = []string{"bridge", "overlay", "host", "none"}

// extensions are the keys of x-clocker under a network; true for a list.
var extensions = map[string]bool{
	"dns": true, "dnsServers": true, "dns_search": true, "dnsSearch": true,
	"addIptablesRules": false, "segment": false, "carrier": false, "egress": false, "mtu": false,
}

// networkKey looks at one key of x-clocker under a network.
func (w *walker) networkKey(k, v *yaml.Node, at string) {
	isList, known := extensions[k.Value]
	v = document.Resolve(v)
	switch {
	case !known:
		names := slices.Sorted(maps.Keys(extensions))
		w.problem(k, at, model.DidYouMean(k.Value, names, "the keys here are "+list(names)), "unknown key %q", k.Value)
	case isList && v.Kind == yaml.SequenceNode:
		for i, c := range v.Content {
			if document.Resolve(c).Kind != yaml.ScalarNode {
				w.problem(c, document.Index(at, i), "write a text", "expected a text, found %s", document.KindName(c))
			}
		}
	case v.Kind != yaml.ScalarNode:
		w.problem(v, at, "write one value", "expected a value, found %s", document.KindName(v))
	}
}

// options of the driver that have a place of their own in the model, by the
// names that docker network create has for them.
const (
	optMTU       = "clocker.mtu"
	optEngineMTU = "com.docker.network.driver.mtu"
	optSegment   = "clocker.segment"
	optCarrier   = "clocker.carrier"
	optEgress    = "clocker.egress"
	optDriver    = "clocker.driver"
)

func (l *load) network(p *types.Project, name string) *model.Network {
	n := p.Networks[name]
	path := "networks." + name
	out := &model.Network{
		Name:       name,
		External:   bool(n.External),
		Internal:   n.Internal,
		Attachable: n.Attachable,
		IPv6:       n.EnableIPv6 != nil && *n.EnableIPv6,
		NoIPv4:     n.EnableIPv4 != nil && !*n.EnableIPv4,
		Position:   l.index[path],
	}
	if out.External || n.Name != p.Name+"_"+name {
		out.ExternalName = n.Name
	}
	if n.Driver != "" && n.Driver != "clocker" && n.Driver != "default" {
		out.Driver = n.Driver
	}
	if d := n.DriverOpts[optDriver]; d != "" {
		out.Driver = d
	}
	for _, k := range slices.Sorted(maps.Keys(n.DriverOpts)) {
		l.driverOption(out, path+".driver_opts."+k, k, n.DriverOpts[k])
	}
	if len(n.Labels) > 0 {
		out.Labels = maps.Clone(n.Labels)
	}
	l.ipam(out, path, n.Ipam.Config)
	if x, ok := n.Extensions["x-clocker"].(map[string]any); ok {
		l.networkExtension(out, path+".x-clocker", x)
	}
	return out
}

func (l *load) driverOption(n *model.Network, path, key, value string) {
	switch key {
	case optDriver:
	case optSegment:
		n.Segment = value
	case optCarrier:
		n.Carrier = value
	case optEgress:
		n.Egress = value
	case optMTU, optEngineMTU:
		mtu, err := strconv.Atoi(value)
		if err != nil {
			l.refuse(path, "a number of bytes, such as 1400", "%q is no MTU", value)
		}
		n.MTU = mtu
	default:
		if n.Driver == "" || strings.HasPrefix(key, "clocker.") {
			known := []string{optCarrier, optDriver, optEgress, optMTU, optSegment, optEngineMTU}
			l.refuse(path, model.DidYouMean(key, known, "the fleet's driver has "+strings.Join(known, ", ")), "unknown driver option %q", key)
			return
		}
		if n.DriverOptions == nil {
			n.DriverOptions = map[string]string{}
		}
		n.DriverOptions[key] = value
	}
}

// ipam reads the subnets: one of each family.
func (l *load) ipam(n *model.Network, path string, configs []*types.IPAMPool) {
	for i, c := range configs {
		if c == nil {
			continue
		}
		at := fmt.Sprintf("%s.ipam.config[%d]", path, i)
		subnet, gateway, within := &n.Subnet, &n.Gateway, &n.Range
		for _, text := range []string{c.Subnet, c.Gateway, c.IPRange} {
			if strings.Contains(text, ":") {
				subnet, gateway, within = &n.Subnet6, &n.Gateway6, &n.Range6
				n.IPv6 = true
			}
		}
		if *subnet != "" {
			l.refuse(at+".subnet", "keep one subnet of each family", "the network has subnet %s already", *subnet)
			continue
		}
		*subnet, *gateway, *within = c.Subnet, c.Gateway, c.IPRange
		for _, k := range slices.Sorted(maps.Keys(c.AuxiliaryAddresses)) {
			if _, err := netip.ParseAddr(c.AuxiliaryAddresses[k]); err != nil {
				l.refuse(at+".aux_addresses."+k, "such as 10.208.16.5", "%q is no address", c.AuxiliaryAddresses[k])
				continue
			}
			n.Reserved = append(n.Reserved, c.AuxiliaryAddresses[k])
		}
	}
}

// networkExtension reads x-clocker; the walker has refused unknown keys and
// what is neither value nor list.
func (l *load) networkExtension(n *model.Network, path string, x map[string]any) {
	for _, k := range slices.Sorted(maps.Keys(x)) {
		text := fmt.Sprint(x[k])
		switch k {
		case "dns", "dnsServers":
			for _, s := range texts(x[k]) {
				n.DNSServers = append(n.DNSServers, model.Text(s))
			}
		case "dns_search", "dnsSearch":
			n.DNSSearch = append(n.DNSSearch, texts(x[k])...)
		case "addIptablesRules":
			on, err := strconv.ParseBool(text)
			if err != nil {
				l.refuse(path+"."+k, "true or false", "%q is neither", text)
			}
			n.Unfiltered = err == nil && !on
		case "segment":
			l.driverOption(n, path+"."+k, optSegment, text)
		case "carrier":
			l.driverOption(n, path+"."+k, optCarrier, text)
		case "egress":
			l.driverOption(n, path+"."+k, optEgress, text)
		case "mtu":
			l.driverOption(n, path+"."+k, optMTU, text)
		}
	}
}

// texts reads one text or a list of them.
func texts(v any) []string {
	items, ok := v.([]any)
	if !ok {
		items = []any{v}
	}
	var out []string
	for _, i := range items {
		if i != nil {
			out = append(out, fmt.Sprint(i))
		}
	}
	return out
}
