package wireguard

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"clocker.io/clocker/netplugin/carrier"
)

// Port is the UDP port of the fleet's encrypted packets.
const Port = 7484

// keepalive is how often a host lets others hear of it, so that whatever
// translates addresses between them (NAT) keeps the way open.
const keepalive = 25 * time.Second

// remote is another host as the device must know it.
type remote struct {
	host     string
	endpoint netip.AddrPort
	// allowed are the addresses that packets from it may come from, and go to;
	// sorted.
	allowed []netip.Prefix
}

// remotes works out, from the peers, what the device must know, by public key.
// Peers whose key cannot be used are left out.
func remotes(peers []carrier.Peer) map[wgtypes.Key]remote {
	all := map[wgtypes.Key]remote{}
	for _, p := range peers {
		key, err := wgtypes.ParseKey(p.Key)
		if err != nil {
			continue
		}
		r := all[key]
		r.host, r.endpoint = p.Host, netip.AddrPortFrom(p.Address, Port)
		// What the host says itself: that a packet was too large, for example.
		r.allowed = append(r.allowed, netip.PrefixFrom(p.Address, p.Address.BitLen()))
		for _, x := range p.Prefixes {
			r.allowed = append(r.allowed, x.Masked())
		}
		slices.SortFunc(r.allowed, comparePrefixes)
		r.allowed = slices.Compact(r.allowed)
		all[key] = r
	}
	return all
}

func comparePrefixes(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}

// change is what is to be told to the device about one remote.
type change struct {
	key    wgtypes.Key
	remove bool
	// fresh says that the device does not know the remote yet.
	fresh bool
	// call has the device call the remote now, and keep the way open from
	// then on.
	call bool
	// endpoint is not valid where it stays as it is: a host that roams is
	// found where its packets come from.
	endpoint netip.AddrPort
	// add are allowed addresses that are new. With replace they are all of
	// them.
	add     []netip.Prefix
	replace bool
}

// changes are what leads from what the device knows to what it must know. An
// address that moves from one remote to another is added to its new one before
// the old one loses it: each address has one remote at any time.
func changes(have, want map[wgtypes.Key]remote) []change {
	var add, drop []change
	for _, k := range sorted(want) {
		w, h := want[k], have[k]
		_, known := have[k]
		c := change{key: k, fresh: !known}
		if w.endpoint != h.endpoint {
			c.endpoint = w.endpoint
		}
		c.add = without(w.allowed, h.allowed)
		if lost := without(h.allowed, w.allowed); len(lost) > 0 {
			drop = append(drop, change{key: k, add: w.allowed, replace: true})
		}
		if c.fresh || c.endpoint.IsValid() || len(c.add) > 0 {
			add = append(add, c)
		}
	}
	for _, k := range sorted(have) {
		if _, ok := want[k]; !ok {
			drop = append(drop, change{key: k, remove: true})
		}
	}
	return append(add, drop...)
}

func without(all, these []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(all), func(p netip.Prefix) bool { return slices.Contains(these, p) })
}

func sorted(m map[wgtypes.Key]remote) []wgtypes.Key {
	return slices.SortedFunc(maps.Keys(m), func(a, b wgtypes.Key) int { return strings.Compare(a.String(), b.String()) })
}

// toCall is a host that this one is to call, unless it has called by itself.
type toCall struct {
	key wgtypes.Key
	// called says that it was called before, when the device learned of it,
	// and first that it is for the other host to call again.
	called, first bool
}

// calls decides who of two hosts calls first. Two that call at the same moment
// each forget their own call over the other's, and try again only after five
// seconds. The host with the lesser key calls at once, as the device does for
// each change with call; the other calls a moment later, which also mends a
// first call that came too early or crossed with another. All that are new are
// returned: they are to be looked at.
func calls(own wgtypes.Key, all []change) (later []toCall) {
	for i, c := range all {
		if !c.fresh {
			continue
		}
		all[i].call = bytes.Compare(own[:], c.key[:]) < 0
		later = append(later, toCall{key: c.key, called: all[i].call, first: all[i].call})
	}
	return later
}

// callsBack are the later calls. A host that has not proved who it is by now is
// forgotten and told of anew, as the device calls nobody twice within five
// seconds; it is among those to be seen to again. So is one whose call crossed
// with the one to it.
func callsBack(later []toCall, have map[wgtypes.Key]remote, seen map[wgtypes.Key]status) (all []change, again []toCall) {
	for _, l := range later {
		r, ok := have[l.key]
		if !ok {
			continue
		}
		s := seen[l.key]
		switch {
		case s.handshake.IsZero() && l.first:
			again = append(again, l)
			continue
		case !s.handshake.IsZero() && !(l.called && crossed(s)):
			all = append(all, change{key: l.key, call: true})
			continue
		}
		if s.endpoint.IsValid() {
			r.endpoint = s.endpoint
		}
		all = append(all, change{key: l.key, remove: true}, change{key: l.key, fresh: true, endpoint: r.endpoint, add: r.allowed, call: true})
		again = append(again, toCall{key: l.key, called: true, first: l.first})
	}
	return all, again
}

// bothCalls is what has come from a host that called and answered, and sent
// nothing else, in bytes (WireGuard's paper §5.4.2 and §5.4.3).
const bothCalls = 148 + 92

// crossed reports whether a host that was called, and that the device knew
// nothing of before, called as well, and nothing has come from it since.
// wireguard-go works off a call and an answer at the same time: what comes of
// it may be a session in which packets pass one way only, and that is not
// noticed for fifteen seconds. A call is likely to cross that waited, at a
// router that did not know the way to this host before it spoke.
func crossed(s status) bool { return s.received == bothCalls }

// text writes changes as the configuration protocol of WireGuard in user space
// has them (https://www.wireguard.com/xplatform/).
func text(all []change) string {
	var b strings.Builder
	for _, c := range all {
		fmt.Fprintf(&b, "public_key=%x\n", c.key[:])
		if c.remove {
			b.WriteString("remove=true\n")
			continue
		}
		if !c.fresh {
			b.WriteString("update_only=true\n")
		}
		if c.endpoint.IsValid() {
			fmt.Fprintf(&b, "endpoint=%s\n", c.endpoint)
		}
		if c.call {
			fmt.Fprintf(&b, "persistent_keepalive_interval=%d\n", int(keepalive.Seconds()))
		}
		if c.replace {
			b.WriteString("replace_allowed_ips=true\n")
		}
		for _, p := range c.add {
			fmt.Fprintf(&b, "allowed_ip=%s\n", p)
		}
	}
	return b.String()
}
