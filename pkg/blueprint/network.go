package blueprint

import (
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/source/document"
)

// networkKeys are the keys of a VirtualNetwork (spec/clocker.md §4.1) beside
// those that every service may have.
var networkKeys = []string{"networkId", "cidr", "gateway", "dnsServers", "dnsSearch", "addIptablesRules"}

// isNetwork tells a service that is a network, by the simple name of its type.
func isNetwork(d *draft) bool {
	if d.typ == nil || d.typ.value == nil || d.typ.value.Kind != yaml.ScalarNode {
		return false
	}
	name := d.typ.value.Value
	for _, p := range typePrefixes {
		name = strings.TrimPrefix(name, p)
	}
	return name[strings.LastIndexByte(name, '.')+1:] == "VirtualNetwork"
}

// network reads a service that is a network. Its networkId is its name on
// every host, and what services name in their network.list.
func (r *reader) network(d *draft) *model.Network {
	n := &model.Network{Position: r.doc.At(d.node)}
	entries := d.entries
	for i := 0; i < len(entries); i++ {
		e := entries[i]
		switch e.key {
		case "type", "serviceType", "service_type", "id", "name":
		case "brooklyn.config", "brooklyn.flags":
			entries = append(entries, r.entries(e.value, e.path, "such as {cidr: 192.168.34.0/24}")...)
		case "networkId":
			n.Name, _ = r.constant(e.value, e.path)
			n.ExternalName = n.Name
		case "cidr":
			text, _ := r.constant(e.value, e.path)
			if strings.Contains(text, ":") {
				n.Subnet6, n.IPv6 = text, true
			} else {
				n.Subnet = text
			}
		case "gateway":
			text, _ := r.constant(e.value, e.path)
			if strings.Contains(text, ":") {
				n.Gateway6 = text
			} else {
				n.Gateway = text
			}
		case "dnsServers":
			for _, text := range r.texts(e) {
				n.DNSServers = append(n.DNSServers, model.Text(text))
			}
		case "dnsSearch":
			n.DNSSearch = r.texts(e)
		case "addIptablesRules":
			text, ok := r.constant(e.value, e.path)
			on, err := strconv.ParseBool(text)
			if ok && err != nil {
				r.add(e.value, e.path, "true or false", "%q is neither", text)
			}
			n.Unfiltered = err == nil && !on
		default:
			known := append(slices.Clone(networkKeys), structural...)
			r.add(e.node, e.path, model.DidYouMean(e.key, known, "the keys of a network are "+strings.Join(networkKeys, ", ")), "unknown key %q", e.key)
		}
	}
	if n.Name == "" && !slices.ContainsFunc(entries, func(e entry) bool { return e.key == "networkId" }) {
		r.add(d.node, d.path, "such as networkId: database-net", "the network has no networkId")
	}
	return n
}

// texts reads a list of texts, or one.
func (r *reader) texts(e entry) []string {
	if document.Null(e.value) {
		return nil
	}
	var out []string
	for i, n := range items(e.value) {
		if text, ok := r.constant(n, itemPath(e.value, e.path, i)); ok {
			out = append(out, text)
		}
	}
	return out
}

// attach joins a service to the networks of its network.list, after the
// application's own.
func (r *reader) attach(d *draft, s *model.Service) {
	set, ok := d.settings[keyNetworks]
	if !ok {
		return
	}
	for _, name := range r.texts(set.entry) {
		s.Networks = append(s.Networks, model.Attachment{Network: name, Position: r.doc.At(set.value)})
	}
}
