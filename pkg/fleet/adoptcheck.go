package fleet

import (
	"fmt"
	"slices"
	"strings"

	"github.com/docker/go-units"

	"clocker.io/clocker/pkg/fleet/preflight"
)

// Result is what a check of a machine came to.
type Result string

// The results of checks, the worst last.
const (
	Fine Result = "ok"
	// Warning is for what may do, and what the user should know.
	Warning Result = "warning"
	// Problem keeps the machine from being adopted.
	Problem Result = "problem"
)

// Check is one thing that was looked at before a machine is adopted.
type Check struct {
	// Name is "engine", "platform", "membership", "name", "routes", "clock",
	// "forwarding", "address", "ports", "firewall", "mtu", "disk", "memory".
	Name   string `json:"name"`
	Result Result `json:"result"`
	// Text says what was found and, unless it is fine, what to do.
	Text string `json:"text"`
}

// checks gathers what was looked at.
type checks []Check

// add notes everything that a look brought up, or that it is fine.
func (c *checks) add(name, fine string, problems ...string) {
	for _, p := range problems {
		*c = append(*c, Check{name, Problem, p})
	}
	if len(problems) == 0 && fine != "" {
		*c = append(*c, Check{name, Fine, fine})
	}
}

func (c *checks) warn(name, format string, args ...any) {
	*c = append(*c, Check{name, Warning, fmt.Sprintf(format, args...)})
}

// problems are the texts of those that keep the machine out.
func (c *checks) problems() []string {
	var out []string
	for _, k := range *c {
		if k.Result == Problem {
			out = append(out, k.Text)
		}
	}
	return out
}

// The least of a machine's means, and what is little.
const (
	minDisk, littleDisk     = 200 << 20, 2 << 30
	minMemory, littleMemory = 128 << 20, 512 << 20
	minMTU, usualMTU        = 1280, 1500
)

// The UDP ports of the carriers (netplugin/carrier/vxlan and wireguard), which
// this program does not contain.
const vxlanPort, wireguardPort = 7483, 7484

// checkMeans looks at what a machine has: ports, firewall, links, disk and
// memory. ours says that it is a host of this fleet by now, whose ports are
// taken by us.
func checkMeans(f preflight.Facts, memory int64, ours bool) checks {
	var c checks
	var ports []string
	if !ours {
		for _, p := range []struct {
			port int
			what string
		}{{vxlanPort, "packets between hosts that routers are between"}, {wireguardPort, "encrypted packets between hosts"}} {
			if slices.Contains(f.Listening, fmt.Sprintf("udp/%d", p.port)) {
				ports = append(ports, fmt.Sprintf("UDP port %d, wanted for %s, is in use: stop what listens there", p.port, p.what))
			}
		}
		for _, proto := range []string{"udp", "tcp"} {
			if slices.Contains(f.Everywhere, proto+"/53") {
				ports = append(ports, fmt.Sprintf("something answers DNS on every address (%s port 53), so the fleet's names cannot be answered: bind it to its own addresses (dnsmasq: bind-interfaces, bind: listen-on)", strings.ToUpper(proto)))
				break
			}
		}
	}
	c.add("ports", "the ports that a host needs are free", ports...)
	c.firewall(f.Firewall, f.IPTables == preflight.Legacy)
	switch {
	case f.MTU > 0 && f.MTU < minMTU:
		c.add("mtu", "", fmt.Sprintf("packets of link %s hold %d bytes: %d is the least (RFC 8200)", f.DefaultLink, f.MTU, minMTU))
	case f.MTU > 0 && f.MTU < usualMTU:
		c.warn("mtu", "packets of link %s hold %d bytes: networks that are made from now on have less room on all hosts", f.DefaultLink, f.MTU)
	case f.MTU > 0:
		c.add("mtu", fmt.Sprintf("packets of link %s hold %d bytes", f.DefaultLink, f.MTU))
	}
	amount(&c, "disk", "free on the engine's disk", f.DiskFree, minDisk, littleDisk)
	amount(&c, "memory", "of memory", memory, minMemory, littleMemory)
	for _, u := range f.Unknown {
		c.warn("machine", "could not be found out: %s", u)
	}
	return c
}

// firewall looks at the machine's chains. legacy says that Docker's rules are of
// the older iptables: they cannot be read, so that this is no more than a
// warning, as somebody may have let our links pass there by hand.
func (c *checks) firewall(chains []preflight.Chain, legacy bool) {
	switch {
	case legacy:
		c.warn("firewall", "Docker's rules are of the older iptables (iptables-legacy), which cannot be looked at from here: where the policy of its FORWARD chain is DROP, as Docker usually sets it, packets of Clocker's networks are dropped: "+
			"choose the newer one (update-alternatives --set iptables /usr/sbin/iptables-nft && update-alternatives --set ip6tables /usr/sbin/ip6tables-nft) and restart the machine, "+
			"or let them pass after each start (iptables-legacy -I DOCKER-USER -i ck+ -j ACCEPT && iptables-legacy -I DOCKER-USER -o ck+ -j ACCEPT)")
	case len(chains) == 0:
		c.add("firewall", "no firewall that drops what it does not know")
	}
	for _, ch := range chains {
		switch {
		case ch.Rules == 0 && ch.Hook == "forward":
			c.add("firewall", "", fmt.Sprintf("the firewall drops every packet that containers send or get (chain %s of table %s, without rules): set its policy to accept, or let Docker's networks pass", ch.Name, ch.Table))
		case ch.Rules == 0:
			c.add("firewall", "", fmt.Sprintf("the firewall drops every packet to the machine, answers too (chain %s of table %s, without rules): set its policy to accept, or give it rules", ch.Name, ch.Table))
		case ch.Hook == "forward":
			c.warn("firewall", "the firewall drops what is passed on unless a rule lets it (chain %s of table %s): let packets between containers and other hosts pass%s", ch.Name, ch.Table, passing(ch))
		default:
			c.warn("firewall", "the firewall drops what comes in unless a rule lets it (chain %s of table %s): let UDP ports %d and %d of the other hosts in, and the ports that applications publish%s", ch.Name, ch.Table, vxlanPort, wireguardPort, opening(ch))
		}
	}
}

// opening is how the ports between hosts are opened where somebody keeps the
// firewall, passing how packets of containers are let through.
func opening(ch preflight.Chain) string {
	switch ch.Keeper {
	case preflight.UFW:
		return fmt.Sprintf(": ufw allow %d,%d/udp", vxlanPort, wireguardPort)
	case preflight.Firewalld:
		return fmt.Sprintf(": firewall-cmd --permanent --add-port=%d-%d/udp && firewall-cmd --reload", vxlanPort, wireguardPort)
	}
	return ""
}

func passing(ch preflight.Chain) string {
	switch ch.Keeper {
	case preflight.UFW:
		return ": ufw default allow routed"
	case preflight.Firewalld:
		return ": firewall-cmd --permanent --zone=trusted --add-source=POOL && firewall-cmd --reload, for each pool (docker clocker pool ls)"
	}
	return ""
}

func amount(c *checks, name, what string, have, least, little int64) {
	size := units.BytesSize(float64(have))
	switch {
	case have <= 0: // not known
	case have < least:
		c.add(name, "", fmt.Sprintf("%s %s: %s is the least", size, what, units.BytesSize(float64(least))))
	case have < little:
		c.warn(name, "%s %s: that is little", size, what)
	default:
		c.add(name, size+" "+what)
	}
}

// across finds what is wrong between machines that are added together; it
// returns the problems of each, by position.
func across(as []*adoption) [][]string {
	out := make([][]string, len(as))
	for i, a := range as {
		for _, b := range as[:i] {
			if a.machine == nil || b.machine == nil {
				continue
			}
			switch {
			case a.machine.info.ID != "" && a.machine.info.ID == b.machine.info.ID:
				out[i] = append(out[i], fmt.Sprintf("it is the same machine as %s (its engine's id is %s): name it once", b.o.Endpoint, a.machine.info.ID))
			case a.o.Name == b.o.Name:
				out[i] = append(out[i], fmt.Sprintf("%s would be called %s as well: give names", b.o.Endpoint, a.o.Name))
			case a.address != "" && a.address == b.address:
				out[i] = append(out[i], fmt.Sprintf("%s has the address %s as well: give --address", b.o.Endpoint, a.address))
			}
		}
	}
	return out
}

// Report is what was found out about one machine.
type Report struct {
	// Endpoint is how it is reached, Name the name that it would have.
	Endpoint string  `json:"endpoint"`
	Name     string  `json:"name"`
	Checks   []Check `json:"checks"`
}

// Refused reports whether a problem keeps the machine out.
func (r Report) Refused() bool {
	return slices.ContainsFunc(r.Checks, func(c Check) bool { return c.Result == Problem })
}
