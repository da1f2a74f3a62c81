package command

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/pkg/api"
)

func newNetworkCommand(e *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "network",
		Short: "Manage the networks of a fleet",
		Args:  args(cli.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newNetworkCreateCommand(e), newNetworkLsCommand(e), newNetworkInspectCommand(e), newNetworkRmCommand(e), newNetworkPruneCommand(e),
		newNetworkAttachCommand(e), newNetworkDetachCommand(e), newNetworkRuleCommand(e),
	)
	return cmd
}

type networkCreateOptions struct {
	request         api.NetworkRequest
	options, labels []string
	aux             []string
	// attachable is taken as docker's own command takes it; every network is.
	ipv4, attachable, quiet bool
}

func newNetworkCreateCommand(e *Env) *cobra.Command {
	var o networkCreateOptions
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] NETWORK",
		Short: "Make a network on every host",
		Long: `Make a network on every host.

It is a Docker network on each engine, so that docker run --network works
wherever a container starts. What is not said is chosen: a subnet that meets no
other network and no route of any host, an MTU that every host carries, and
between each pair of hosts the carrier that serves them.

The command ends when every host that answers has the network.`,
		Example: `  docker clocker network create front
  docker clocker network create --subnet 10.40.0.0/16 --ip-range 10.40.1.0/24 --gateway 10.40.0.254 back
  docker clocker network create --ipv6 --internal --carrier wireguard secrets
  docker clocker network create --driver macvlan -o parent=eth1 --subnet 192.0.2.0/24 lab`,
		Args: args(cli.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.request.Name, o.request.NoIPv4 = args[0], !o.ipv4
			return runNetworkCreate(cmd.Context(), e, o)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f, r := cmd.Flags(), &o.request
	f.StringVarP(&r.Driver, "driver", "d", "clocker", "Network driver of the engines that carries it")
	f.StringSliceVar(&r.Subnets, "subnet", nil, "Subnet in CIDR form, one of each address family")
	f.StringSliceVar(&r.Ranges, "ip-range", nil, "Part of the subnet that containers get addresses from")
	f.StringSliceVar(&r.Gateways, "gateway", nil, "Gateway in the subnet")
	f.StringArrayVar(&o.aux, "aux-address", nil, "Address that no container gets, NAME=ADDRESS")
	f.BoolVar(&o.ipv4, "ipv4", true, "Give it IPv4 addresses")
	f.BoolVar(&r.IPv6, "ipv6", false, "Give it IPv6 addresses")
	f.BoolVar(&r.Internal, "internal", false, "Let nothing in or out")
	f.BoolVar(&o.attachable, "attachable", true, "Let containers that docker run makes join (always so)")
	f.StringArrayVarP(&o.options, "opt", "o", nil, "Option for the driver, KEY=VALUE")
	f.StringArrayVar(&o.labels, "label", nil, "Label, KEY=VALUE")
	f.StringVar(&r.Pool, "pool", "", "Address pool to take the subnet from")
	f.IntVar(&r.Size, "size", 0, "Prefix length of the subnet to take from the pool")
	f.StringVar(&r.Segment, "segment", "", `How containers are linked: "routed" or "bridged" (default "routed")`)
	f.StringVar(&r.Carrier, "carrier", "", `Between hosts: "auto", "direct", "vxlan" or "wireguard" (default "auto")`)
	f.IntVar(&r.MTU, "mtu", 0, "Greatest packet in bytes (default: what every host carries)")
	f.StringSliceVar(&r.DNS, "dns", nil, "DNS server for containers of applications on it")
	f.StringSliceVar(&r.Search, "dns-search", nil, "Domain that names are looked up in")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Print only the network's ID")
	for flag, values := range map[string][]string{
		"segment": {"routed", "bridged"}, "carrier": {"auto", "direct", "vxlan", "wireguard"},
	} {
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	_ = cmd.RegisterFlagCompletionFunc("pool", e.completePools)
	return cmd
}

func runNetworkCreate(ctx context.Context, e *Env, o networkCreateOptions) error {
	var errs []error
	read := func(what string, flags []string, into *map[string]string) {
		m, err := keyValues(what, flags)
		if err != nil {
			errs = append(errs, err)
		}
		if len(m) > 0 {
			*into = m
		}
	}
	read("option", o.options, &o.request.Options)
	read("label", o.labels, &o.request.Labels)
	read("auxiliary address", o.aux, &o.request.Aux)
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	return e.with(func(c *api.Client) error {
		made, err := c.CreateNetwork(ctx, o.request)
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintln(e.cli.Out(), made.Network.ID)
		if !o.quiet {
			e.say("network %s (%s) is on every host that answers", made.Network.Name, subnets(made.Network.Subnet, made.Network.Subnet6))
		}
		return e.behind("create", made)
	})
}

func subnets(all ...string) string {
	var out []string
	for _, s := range all {
		if s != "" {
			out = append(out, s)
		}
	}
	return strings.Join(out, ", ")
}

// behind names the hosts that have not followed. One that is down follows
// when it is back; one that answers and did not is a failure.
func (e *Env) behind(verb string, c api.NetworkChange) error {
	var failed []string
	for _, h := range c.Behind {
		if h.Down {
			e.say("host %s %s", h.Host, h.Reason)
			continue
		}
		failed = append(failed, "host "+h.Host+": "+h.Reason)
	}
	if len(failed) == 0 {
		return nil
	}
	return fmt.Errorf("%s network %s: not every host has followed (docker clocker doctor shows what is wrong there):\n%s", verb, c.Network.Name, strings.Join(failed, "\n"))
}
