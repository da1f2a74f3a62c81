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

func newNetworkAttachCommand(e *Env) *cobra.Command {
	var hosts []string
	cmd := &cobra.Command{
		Use:   "attach --host HOST [--host HOST...] NETWORK",
		Short: "Put machines themselves on a network",
		Long: `Put machines themselves on a network.

The machine gets an address of the network, reaches the containers on it and is
reached by them. Containers are put on a network with docker network connect.`,
		Example: `  docker clocker network attach back --host h1`,
		Args:    args(cli.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runNetworkAttach(cmd.Context(), e, args[0], hosts)
		},
		ValidArgsFunction: e.completeNetwork,
	}
	e.hostFlag(cmd, &hosts, "Host to put on it")
	return cmd
}

// hostFlag adds --host, which may be given more than once.
func (e *Env) hostFlag(cmd *cobra.Command, hosts *[]string, usage string) {
	cmd.Flags().StringSliceVar(hosts, "host", nil, usage)
	_ = cmd.RegisterFlagCompletionFunc("host", func(cmd *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
		return e.completeHosts(cmd, *hosts, word)
	})
}

func runNetworkAttach(ctx context.Context, e *Env, network string, hosts []string) error {
	if len(hosts) == 0 {
		return usageError{errors.New("which machine? say --host HOST")}
	}
	return e.with(func(c *api.Client) error {
		var errs []error
		for _, host := range hosts {
			a, err := c.AttachHost(ctx, network, host)
			switch {
			case err != nil:
				errs = append(errs, err)
			case a.Reason != "":
				errs = append(errs, fmt.Errorf("attach host %s to network %s: %s", a.Host, a.Network, a.Reason))
			default:
				_, _ = fmt.Fprintln(e.cli.Out(), strings.Join(a.Addresses, "\n"))
				e.say("host %s is on network %s", a.Host, a.Network)
			}
		}
		return errors.Join(errs...)
	})
}

func newNetworkDetachCommand(e *Env) *cobra.Command {
	var hosts []string
	cmd := &cobra.Command{
		Use:   "detach --host HOST [--host HOST...] NETWORK",
		Short: "Take machines off a network",
		Args:  args(cli.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(hosts) == 0 {
				return usageError{errors.New("which machine? say --host HOST")}
			}
			return e.with(func(c *api.Client) error {
				var errs []error
				for _, host := range hosts {
					err := c.DetachHost(cmd.Context(), args[0], host)
					if err == nil {
						e.say("host %s is no longer on network %s", host, args[0])
					}
					errs = append(errs, err)
				}
				return errors.Join(errs...)
			})
		},
		ValidArgsFunction: e.completeNetwork,
	}
	e.hostFlag(cmd, &hosts, "Host to take off it")
	return cmd
}
