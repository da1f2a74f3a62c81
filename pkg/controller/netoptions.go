package controller

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"clocker.io/clocker/pkg/api"
)

// engineMTU is the engines' own name for the option of an MTU.
const engineMTU = "com.docker.network.driver.mtu"

// kept are options that stay in a network's record under their own names.
var kept = []string{"clocker.broadcast", "clocker.sticky"}

// options takes what the driver's own options say into the request's fields,
// as if it had been asked for by flags; the options of other drivers stay.
func (a *askedNetwork) options(q *api.NetworkRequest, say sayer) {
	// By the plugin, the network is closed to the host's services and the
	// metadata address too, and rules hold for containers that run already. By
	// the engine, docker ps shows published ports.
	a.egress = "plugin"
	rest := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(q.Options)) {
		value := q.Options[name]
		switch name {
		case "clocker.segment":
			agree(name, value, &q.Segment, say)
		case "clocker.carrier":
			agree(name, value, &q.Carrier, say)
		case "clocker.driver":
			if q.Driver == ourDriver { // the flag's default
				q.Driver = ""
			}
			agree(name, value, &q.Driver, say)
		case "clocker.pool":
			agree(name, value, &q.Pool, say)
		case "clocker.egress":
			if a.egress = value; value != "plugin" && value != "engine" {
				say("option clocker.egress=%s: it is plugin or engine", value)
			}
		case "clocker.unfiltered":
			if a.unfiltered = value == "true"; value != "true" && value != "false" {
				say("option clocker.unfiltered=%s: it is true or false", value)
			}
		case "clocker.mtu", engineMTU:
			n, err := strconv.Atoi(value)
			if err != nil {
				say("option %s=%s: an MTU is a number of bytes", name, value)
			} else if q.MTU != 0 && q.MTU != n {
				say("option %s=%s and --mtu %d say different things", name, value, q.MTU)
			}
			q.MTU = n
		default:
			if strings.HasPrefix(name, "clocker.") && !slices.Contains(kept, name) {
				say("option %s is not known: there are clocker.broadcast, clocker.carrier, clocker.driver, clocker.egress, clocker.mtu, clocker.pool, clocker.segment, clocker.sticky, clocker.unfiltered", name)
			}
			rest[name] = value
		}
	}
	if q.Driver == ourDriver {
		q.Driver = ""
	}
	if q.Driver != "" && (q.Segment != "" || q.Carrier != "") {
		say("driver %s carries the network itself: leave --segment and --carrier out", q.Driver)
	}
	if q.Options["clocker.broadcast"] == "true" && q.Segment != "bridged" {
		say("option clocker.broadcast=true: only bridged networks have broadcasts: say --segment bridged")
	}
	q.Options = rest
}

// agree takes an option's value where the flag for it said nothing else.
func agree(name, value string, into *string, say sayer) {
	if *into != "" && *into != value {
		say("option %s=%s and the flag for it (%s) say different things", name, value, *into)
	}
	*into = value
}
