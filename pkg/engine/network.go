package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"clocker.io/clocker/pkg/record"
)

// Driver is the name of the fleet's network and IPAM drivers.
const Driver = "clocker"

// pluginDriver is the name of the managed plugin, by which a user may name the
// driver too.
const pluginDriver = "clocker-net"

// OptionNetwork is the driver and IPAM option that holds the fleet's id of a
// network.
const OptionNetwork = "clocker.network"

// Network is a network of an engine.
type Network struct {
	ID      string
	Name    string
	Driver  string
	Subnets []string
	Options map[string]string
	Labels  map[string]string
	// FleetID is the fleet's id of the network, from its label or options;
	// empty for one made by hand that names none.
	FleetID string
}

// Ours reports whether the network is of the fleet's driver, by its plain name
// or that of the managed plugin, or was made by an agent for a network of the
// fleet that has another driver.
func (n *Network) Ours() bool {
	name, _, _ := strings.Cut(n.Driver, ":")
	return name == Driver || name == pluginDriver || n.Labels[LabelNetwork] != ""
}

// Networks lists the engine's networks that are of the fleet, or of its driver.
func (e *Engine) Networks(ctx context.Context) ([]Network, error) {
	r, err := e.cli.NetworkList(ctx, client.NetworkListOptions{})
	if err != nil {
		return nil, wrap("list networks", err)
	}
	var out []Network
	for _, n := range r.Items {
		if n := fromNetwork(n.Network); n.Ours() {
			out = append(out, n)
		}
	}
	return out, nil
}

// Network inspects a network by id or name, whatever its driver.
func (e *Engine) Network(ctx context.Context, id string) (Network, error) {
	r, err := e.cli.NetworkInspect(ctx, id, client.NetworkInspectOptions{})
	if err != nil {
		return Network{}, wrap("inspect network "+id, err)
	}
	return fromNetwork(r.Network.Network), nil
}

func fromNetwork(n network.Network) Network {
	out := Network{ID: n.ID, Name: n.Name, Driver: n.Driver, Options: n.Options, Labels: n.Labels}
	for _, c := range n.IPAM.Config {
		out.Subnets = append(out.Subnets, c.Subnet.String())
	}
	for _, id := range []string{n.Labels[LabelNetwork], n.Options[OptionNetwork], n.IPAM.Options[OptionNetwork]} {
		if id != "" {
			out.FleetID = id
			break
		}
	}
	return out
}

// CreateNetwork makes a network of the fleet on this engine, under the same
// name, subnet and id as everywhere, and returns the engine's id of it. A name
// that is taken gives ErrConflict.
func (e *Engine) CreateNetwork(ctx context.Context, n record.Network, labels map[string]string) (string, error) {
	op := "create network " + n.Name
	o, err := networkOptions(n, labels)
	if err != nil {
		return "", &Error{Op: op, Kind: ErrInvalid, err: err}
	}
	r, err := e.cli.NetworkCreate(ctx, n.Name, o)
	if err != nil {
		kind := kindOf(err)
		// Engines answer a name that is taken with 409 or 403.
		if strings.Contains(err.Error(), "already exists") {
			kind = ErrConflict
		}
		return "", &Error{Op: op, Kind: kind, err: err}
	}
	return r.ID, nil
}

func networkOptions(n record.Network, labels map[string]string) (client.NetworkCreateOptions, error) {
	o := client.NetworkCreateOptions{
		Driver:   cmp.Or(n.Driver, Driver),
		Internal: n.Internal,
		IPAM: &network.IPAM{
			Driver:  Driver,
			Options: map[string]string{OptionNetwork: n.ID},
		},
		Options: map[string]string{},
		Labels:  map[string]string{},
	}
	yes, no := true, false
	for _, f := range []struct{ subnet, gateway string }{{n.Subnet, n.Gateway}, {n.Subnet6, n.Gateway6}} {
		if f.subnet == "" {
			continue
		}
		c, err := ipamConfig(f.subnet, f.gateway)
		if err != nil {
			return o, fmt.Errorf("network %s: %w", n.ID, err)
		}
		o.IPAM.Config = append(o.IPAM.Config, c)
	}
	if len(o.IPAM.Config) == 0 {
		return o, fmt.Errorf("network %s: it has no subnet", n.ID)
	}
	// Engines before 28 know no networks without IPv4, and refuse what has no
	// subnet of it.
	if n.Subnet == "" {
		o.EnableIPv4 = &no
	}
	if n.Subnet6 != "" {
		o.EnableIPv6 = &yes
	}
	if n.Driver != "" {
		maps.Copy(o.Options, n.DriverOptions)
	} else {
		maps.Copy(o.Options, n.Options)
		o.Options[OptionNetwork] = n.ID
	}
	for _, m := range []map[string]string{n.Labels, labels, {LabelNetwork: n.ID}} {
		maps.Copy(o.Labels, m)
	}
	return o, nil
}

func ipamConfig(subnet, gateway string) (c network.IPAMConfig, err error) {
	if c.Subnet, err = netip.ParsePrefix(subnet); err != nil {
		return c, fmt.Errorf("subnet: %w", err)
	}
	if gateway != "" {
		if c.Gateway, err = netip.ParseAddr(gateway); err != nil {
			return c, fmt.Errorf("gateway: %w", err)
		}
	}
	return c, nil
}

// RemoveNetwork takes a network away. One that is gone is no error; one that
// containers are attached to gives an error.
func (e *Engine) RemoveNetwork(ctx context.Context, id string) error {
	_, err := e.cli.NetworkRemove(ctx, id, client.NetworkRemoveOptions{})
	if err = wrap("remove network "+id, err); errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// NetworkUsers lists the containers, running or not, that are attached to a
// network.
func (e *Engine) NetworkUsers(ctx context.Context, id string) ([]string, error) {
	return e.containerIDs(ctx, client.Filters{}.Add("network", id))
}
