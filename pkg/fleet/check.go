package fleet

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/system"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet/preflight"
)

// maxSkew is how far a host's clock may be from the controller's.
const maxSkew = 5 * time.Second

// engineVersion is a Docker Engine's version number.
type engineVersion struct{ major, minor, patch int }

var versionNumber = regexp.MustCompile(`^v?(\d+)\.(\d+)(?:\.(\d+))?`)

// parseVersion reads "28.5.2+dfsg1"; ok is false when it is no such thing, as
// for builds from a branch.
func parseVersion(s string) (v engineVersion, ok bool) {
	m := versionNumber.FindStringSubmatch(s)
	if m == nil {
		return v, false
	}
	v.major, _ = strconv.Atoi(m[1]) // digits
	v.minor, _ = strconv.Atoi(m[2]) // digits
	v.patch, _ = strconv.Atoi(m[3]) // digits, or none
	return v, true
}

func (v engineVersion) before(major, minor int) bool {
	return v.major < major || v.major == major && v.minor < minor
}

// checkEngine says what keeps an engine from running anything of ours.
func checkEngine(version, os string, info system.Info) []string {
	var out []string
	if v, ok := parseVersion(version); ok {
		switch {
		case v.before(20, 10):
			out = append(out, fmt.Sprintf("Docker Engine %s is too old: 20.10 is the oldest that will do: upgrade it", version))
		case v.major == 29 && v.minor == 0 && v.patch < 3:
			// moby#51558
			out = append(out, fmt.Sprintf("Docker Engine %s crashes with network plugins: upgrade it to 29.0.3 or later", version))
		}
	}
	if os != "linux" {
		out = append(out, fmt.Sprintf("the engine runs %s containers: an engine for Linux ones is needed", os))
	}
	for _, o := range info.SecurityOptions {
		if o == "name=rootless" || strings.HasPrefix(o, "name=rootless,") {
			out = append(out, "the engine runs rootless, so it cannot change the machine's network: use one that runs as root")
		}
	}
	return out
}

// checkPorts says which of a controller's ports are taken.
func checkPorts(f preflight.Facts, ports map[string]int) []string {
	var out []string
	for what, p := range ports {
		if slices.Contains(f.Listening, fmt.Sprintf("tcp/%d", p)) {
			out = append(out, fmt.Sprintf("port %d, wanted for %s, is in use: stop what listens there, or choose another port", p, what))
		}
	}
	slices.Sort(out)
	return out
}

// candidate is everything that decides whether a machine may become a host.
type candidate struct {
	fleet, ca, name string
	engineID        string
	facts           preflight.Facts
	hosts           []api.Host
	pools           []string
	// skew is the machine's clock less the controller's, within how much it
	// was measured; skewKnown is false for controllers that do not say.
	skew, within time.Duration
	skewKnown    bool
}

// checkHost says what keeps a machine from becoming the host with the name.
func checkHost(c candidate) []string {
	all := judge(c)
	return all.problems()
}

// judge holds a machine against the fleet.
func judge(c candidate) checks {
	var out checks
	name := "membership"
	bad := false
	add := func(format string, args ...any) { out.add(name, "", fmt.Sprintf(format, args...)); bad = true }
	// begin ends a part with what is said when nothing spoke against it.
	begin := func(next, fine string) {
		if !bad && fine != "" {
			out.add(name, fine)
		}
		name, bad = next, false
	}
	if m := c.facts.Member; foreign(m, c.fleet, c.ca) && !c.listed(m) {
		switch {
		case m.Fleet != c.fleet:
			add("the machine is host %s of fleet %s: take it out there first (docker clocker --fleet %s host rm %s), or take it over with --force", m.Name, m.Fleet, m.Fleet, m.Name)
		default:
			add("the machine is host %s of another fleet that is called %s as well (CA %.12s): take it out there first, or take it over with --force", m.Name, m.Fleet, m.CA)
		}
	}
	begin("name", "it is in no other fleet")
	for _, h := range c.hosts {
		switch {
		case h.Name == c.name && h.EngineID != "" && h.EngineID != c.engineID:
			add("the name %s is taken by the host at %s: give another with --name", c.name, h.Endpoint)
		case h.Name != c.name && h.EngineID != "" && h.EngineID == c.engineID:
			add("the engine is in the fleet already, as host %s: take it out first, or use that name", h.Name)
		}
	}
	begin("routes", c.name)
	for _, pool := range c.pools {
		for _, r := range clashes(pool, c.facts.Routes) {
			add("the machine's route to %s meets the fleet's address pool %s: remove the route, or make a fleet with another pool", r, pool)
		}
	}
	begin("clock", "no route meets the fleet's addresses")
	if c.skewKnown {
		// What was measured may be off by how long measuring took.
		if off := c.skew.Abs() - c.within; off > maxSkew {
			way := "ahead"
			if c.skew < 0 {
				way = "behind"
			}
			add("the machine's clock is %s %s of the controller's: set it (at most %s will do)", c.skew.Abs().Round(time.Second), way, maxSkew)
		}
	}
	begin("forwarding", "as the controller's, within "+maxSkew.String())
	if !c.facts.IPForward {
		add("the machine forwards no packets (net.ipv4.ip_forward=0), so its containers reach nobody: sysctl -w net.ipv4.ip_forward=1")
	}
	begin("", "packets are passed on")
	return out
}

// foreign reports whether a machine belongs to another fleet than the one with
// the name and the CA's fingerprint.
func foreign(m *preflight.Member, fleet, ca string) bool {
	return m != nil && (m.Fleet != fleet || m.CA != "" && m.CA != ca)
}

// listed reports whether the fleet lists a machine as the very host that it says
// it is. Its authority may be another one then: it was away while that of the
// fleet was changed.
func (c candidate) listed(m *preflight.Member) bool {
	return m.Fleet == c.fleet && slices.ContainsFunc(c.hosts, func(h api.Host) bool {
		return h.ID == m.HostID && h.EngineID != "" && h.EngineID == c.engineID
	})
}

// clashes returns the routes that overlap a pool.
func clashes(pool string, routes []string) []string {
	p, err := netip.ParsePrefix(pool)
	if err != nil {
		return nil
	}
	var out []string
	for _, r := range routes {
		if q, err := netip.ParsePrefix(r); err == nil && q.Overlaps(p) {
			out = append(out, r)
		}
	}
	return out
}
