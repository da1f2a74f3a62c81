package formatter

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/cli/cli/command/formatter"

	"clocker.io/clocker/pkg/api"
)

const networkTable = "table {{.ID}}\t{{.Name}}\t{{.Subnet}}\t{{.Driver}}\t{{.Carrier}}\t{{.Hosts}}\t{{.Endpoints}}\t{{.App}}"

// Networks renders `docker clocker network ls`.
func Networks(o Options, networks []api.Network) error {
	header := formatter.SubHeaderContext{
		"ID": "NETWORK ID", "Name": "NAME", "Subnet": "SUBNET", "Driver": "DRIVER", "Segment": "SEGMENT", "Carrier": "CARRIER",
		"Hosts": "HOSTS", "Endpoints": "ADDRESSES", "App": "APP", "MTU": "MTU", "Internal": "INTERNAL", "IPv4": "IPV4", "IPv6": "IPV6",
		"Gateway": "GATEWAY", "Labels": "LABELS", "CreatedAt": "CREATED",
	}
	return write(o, networkTable, "{{.ID}}", header, networks, func(n api.Network) formatter.SubContext {
		return &networkRow{o: o, n: n}
	})
}

// NetworkDriver is what carries a network: "routed" or "bridged" of clocker's
// own, or another driver's name.
func NetworkDriver(n api.Network) string { return cmp.Or(n.Driver, n.Segment) }

type networkRow struct {
	formatter.HeaderContext
	o Options
	n api.Network
}

func (r *networkRow) MarshalJSON() ([]byte, error) { return formatter.MarshalJSON(r) }

func (r *networkRow) ID() string        { return r.n.ID }
func (r *networkRow) Name() string      { return dash(r.n.Name) }
func (r *networkRow) Driver() string    { return NetworkDriver(r.n) }
func (r *networkRow) Segment() string   { return r.n.Segment }
func (r *networkRow) Hosts() string     { return strconv.Itoa(r.n.Hosts) }
func (r *networkRow) Endpoints() string { return strconv.Itoa(r.n.Endpoints) }
func (r *networkRow) App() string       { return dash(r.n.App) }
func (r *networkRow) MTU() string       { return strconv.Itoa(r.n.MTU) }
func (r *networkRow) Internal() string  { return strconv.FormatBool(r.n.Internal) }
func (r *networkRow) IPv4() string      { return strconv.FormatBool(r.n.Subnet != "") }
func (r *networkRow) IPv6() string      { return strconv.FormatBool(r.n.Subnet6 != "") }
func (r *networkRow) CreatedAt() string { return ago(r.o.Now, r.n.CreatedAt) }

// Carrier is a dash for a network of another driver.
func (r *networkRow) Carrier() string {
	if r.n.Driver != "" {
		return "-"
	}
	return r.n.Carrier
}

// Subnet lists the subnets of both families.
func (r *networkRow) Subnet() string { return both(r.n.Subnet, r.n.Subnet6) }

// Gateway lists the gateways of both families.
func (r *networkRow) Gateway() string { return both(r.n.Gateway, r.n.Gateway6) }

func both(all ...string) string {
	return strings.Join(slices.DeleteFunc(all, func(s string) bool { return s == "" }), ", ")
}

// Labels are the network's labels: "a=b,c=d".
func (r *networkRow) Labels() string {
	var out []string
	for k, v := range r.n.Labels {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

const ruleTable = "table {{.ID}}\t{{.From}}\t{{.To}}\t{{.Protocol}}\t{{.Port}}\t{{.Created}}"

// Rules renders `docker clocker network rule ls`.
func Rules(o Options, rules []api.Rule) error {
	header := formatter.SubHeaderContext{
		"ID": "RULE ID", "From": "FROM", "To": "TO", "Protocol": "PROTOCOL", "Port": "PORT", "Created": "CREATED",
	}
	return write(o, ruleTable, "{{.ID}}", header, rules, func(x api.Rule) formatter.SubContext {
		return &ruleRow{o: o, r: x}
	})
}

type ruleRow struct {
	formatter.HeaderContext
	o Options
	r api.Rule
}

func (r *ruleRow) MarshalJSON() ([]byte, error) { return formatter.MarshalJSON(r) }

func (r *ruleRow) ID() string       { return r.r.ID }
func (r *ruleRow) From() string     { return r.r.FromName }
func (r *ruleRow) To() string       { return r.r.ToName }
func (r *ruleRow) Protocol() string { return cmp.Or(r.r.Protocol, "all") }
func (r *ruleRow) Created() string  { return ago(r.o.Now, r.r.CreatedAt) }

// Port is "all" where the rule names none.
func (r *ruleRow) Port() string {
	if r.r.Port == 0 {
		return "all"
	}
	return strconv.Itoa(int(r.r.Port))
}
