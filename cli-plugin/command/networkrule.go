package command

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/cli-plugin/formatter"
	"clocker.io/clocker/pkg/api"
)

func newNetworkRuleCommand(e *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rule",
		Short: "Open closed networks to others",
		Long: `Open closed networks to others.

A network is closed to every other network, and to outside but for published
ports. A rule lets new connections through one way; answers come back.`,
		Args: args(cli.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newRuleLsCommand(e), newRuleAddCommand(e), newRuleRmCommand(e))
	return cmd
}

func newRuleLsCommand(e *Env) *cobra.Command {
	var o list
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List what is open between networks",
		Args:    args(cli.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.with(func(c *api.Client) error {
				rules, err := c.Rules(cmd.Context())
				if err != nil {
					return err
				}
				return formatter.Rules(o.options(e), rules)
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	o.flags(cmd, "Only display IDs")
	return cmd
}

func newRuleAddCommand(e *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add FROM TO[:PORT][/PROTOCOL]",
		Short: "Open a network to another",
		Long: `Open a network to another, or to a machine.

FROM is a network, or an address range in CIDR form; TO is a network, a host
(host:NAME) or an address, alone for everything, or with a port and a protocol
(tcp when only a port is given; udp or icmp).`,
		Example: `  docker clocker network rule add front back:5432
  docker clocker network rule add front host:h1:5000
  docker clocker network rule add 192.0.2.0/24 front/icmp`,
		Args: args(cli.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			to, port, protocol, err := target(args[1])
			if err != nil {
				return err
			}
			return e.with(func(c *api.Client) error {
				r, err := c.AddRule(cmd.Context(), api.RuleRequest{From: args[0], To: to, Port: port, Protocol: protocol})
				if err != nil {
					return err
				}
				_, _ = fmt.Fprintln(e.cli.Out(), r.ID)
				return nil
			})
		},
		ValidArgsFunction: e.completeTwoNetworks,
	}
	return cmd
}

func newRuleRmCommand(e *Env) *cobra.Command {
	return &cobra.Command{
		Use:     "rm RULE [RULE...]",
		Aliases: []string{"remove"},
		Short:   "Close what a rule opened",
		Args:    args(cli.RequiresMinArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(func(c *api.Client) error {
				var errs []error
				for _, id := range args {
					err := c.RemoveRule(cmd.Context(), id)
					if err == nil {
						_, _ = fmt.Fprintln(e.cli.Out(), id)
					}
					errs = append(errs, err)
				}
				return errors.Join(errs...)
			})
		},
		ValidArgsFunction: e.completeRules,
	}
}

// target reads TO[:PORT][/PROTOCOL]. An IPv6 address with a port is in square
// brackets, and one with a slash behind it may have a protocol there.
func target(s string) (to string, port uint16, protocol string, err error) {
	to = s
	if i := strings.LastIndex(s, "/"); i >= 0 {
		to, protocol = s[:i], strings.ToLower(s[i+1:])
		if protocol != "tcp" && protocol != "udp" && protocol != "icmp" {
			return "", 0, "", invalid("%s: protocol %q is not tcp, udp or icmp", s, s[i+1:])
		}
	}
	if rest, ok := strings.CutPrefix(to, "["); ok {
		address, after, closed := strings.Cut(rest, "]")
		if !closed {
			return "", 0, "", invalid("%s: the bracket is not closed", s)
		}
		to = address
		if after == "" {
			return to, 0, protocol, nil
		}
		if port, err = portNumber(s, strings.TrimPrefix(after, ":")); err != nil {
			return "", 0, "", err
		}
	} else if i := strings.LastIndex(to, ":"); i >= 0 && !strings.Contains(to[:i], ":") && to[:i] != "host" {
		if port, err = portNumber(s, to[i+1:]); err != nil {
			return "", 0, "", err
		}
		to = to[:i]
	} else if rest, ok := strings.CutPrefix(to, "host:"); ok {
		if name, number, ok := strings.Cut(rest, ":"); ok {
			if port, err = portNumber(s, number); err != nil {
				return "", 0, "", err
			}
			to = "host:" + name
		}
	}
	if to == "" {
		return "", 0, "", invalid("%s: what is meant is missing", s)
	}
	if port != 0 && protocol == "" {
		protocol = "tcp"
	}
	if port != 0 && protocol == "icmp" {
		return "", 0, "", invalid("%s: icmp has no ports", s)
	}
	return to, port, protocol, nil
}

func portNumber(whole, s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, invalid("%s: %q is not a port: it is a number from 1 to 65535", whole, s)
	}
	return uint16(n), nil
}
