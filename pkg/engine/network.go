package engine

import (
	"context"
	"errors"
	"fmt"
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
// or that of the managed plugin.
func (n *Network) Ours() bool {
	name, _, _ := strings.Cut(n.Driver, ":")
	return name == Driver || name == pluginDriver
}

// Networks lists the engine's networks of the fleet's driver.
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
	subnet, err := netip.ParsePrefix(n.Subnet)
	if err != nil {
		return client.NetworkCreateOptions{}, fmt.Errorf("subnet of network %s: %w", n.ID, err)
	}
	c := network.IPAMConfig{Subnet: subnet}
	if n.Gateway != "" {
		if c.Gateway, err = netip.ParseAddr(n.Gateway); err != nil {
			return client.NetworkCreateOptions{}, fmt.Errorf("gateway of network %s: %w", n.ID, err)
		}
	}
	o := client.NetworkCreateOptions{
		Driver:   Driver,
		Internal: n.Internal,
		IPAM: &network.IPAM{
			Driver:  Driver,
			Options: map[string]string{OptionNetwork: n.ID},
			Config:  []network.IPAMConfig{c},
		},
		Options: map[string]string{},
		Labels:  map[string]string{},
	}
	for k, v := range n.Options {
		o.Options[k] = v
	}
	o.Options[OptionNetwork] = n.ID
	for _, m := range []map[string]string{n.Labels, labels, {LabelNetwork: n.ID}} {
		for k, v := range m {
			o.Labels[k] = v
		}
	}
	return o, nil
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
