package command

import (
	"context"
	"slices"

	"github.com/docker/cli/cli/config"
	"github.com/spf13/cobra"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet"
)

func (e *Env) completeFleets(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	names, err := fleet.List(config.Dir())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeApps completes applications that are not among the arguments yet.
func (e *Env) completeApps(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	return e.ask(cmd.Context(), func(ctx context.Context, c *api.Client) ([]string, error) {
		apps, err := c.Applications(ctx)
		var names []string
		for _, a := range apps {
			names = append(names, a.Name)
		}
		return without(names, given), err
	})
}

// completeApp completes one application and nothing after it.
func (e *Env) completeApp(cmd *cobra.Command, given []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(given) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return e.completeApps(cmd, given, word)
}

// completeServices completes an application, then its services.
func (e *Env) completeServices(cmd *cobra.Command, given []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(given) == 0 {
		return e.completeApps(cmd, given, word)
	}
	return e.ask(cmd.Context(), func(ctx context.Context, c *api.Client) ([]string, error) {
		tasks, err := c.Tasks(ctx, given[0])
		sortTasks(tasks)
		return without(services(tasks), given[1:]), err
	})
}

// completeTasks completes applications and tasks.
func (e *Env) completeTasks(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	return e.ask(cmd.Context(), func(ctx context.Context, c *api.Client) ([]string, error) {
		apps, err := c.Applications(ctx)
		if err != nil {
			return nil, err
		}
		tasks, err := c.Tasks(ctx, "")
		sortTasks(tasks)
		var names []string
		for _, a := range apps {
			names = append(names, a.Name)
		}
		for _, t := range tasks {
			names = append(names, t.Name)
		}
		return without(names, given), err
	})
}

// completeHosts completes hosts that are not among the arguments yet.
func (e *Env) completeHosts(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	return e.ask(cmd.Context(), func(ctx context.Context, c *api.Client) ([]string, error) {
		hosts, err := c.Hosts(ctx)
		var names []string
		for _, h := range hosts {
			names = append(names, h.Name)
		}
		return without(names, given), err
	})
}

// completeNetworks completes networks that are not among the arguments yet.
func (e *Env) completeNetworks(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	return e.ask(cmd.Context(), func(ctx context.Context, c *api.Client) ([]string, error) {
		networks, err := c.Networks(ctx)
		var names []string
		for _, n := range networks {
			if n.Name != "" {
				names = append(names, n.Name)
			}
		}
		return without(names, given), err
	})
}

// completeNetwork completes one network, completeTwoNetworks two.
func (e *Env) completeNetwork(cmd *cobra.Command, given []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(given) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return e.completeNetworks(cmd, given, word)
}

func (e *Env) completeTwoNetworks(cmd *cobra.Command, given []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(given) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return e.completeNetworks(cmd, given, word)
}

// completePools completes address pools that are not among the arguments yet.
func (e *Env) completePools(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	return e.ask(cmd.Context(), func(ctx context.Context, c *api.Client) ([]string, error) {
		pools, err := c.Pools(ctx)
		var names []string
		for _, p := range pools {
			names = append(names, p.Name)
		}
		return without(names, given), err
	})
}

// completeRules completes rules with what they open.
func (e *Env) completeRules(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	return e.ask(cmd.Context(), func(ctx context.Context, c *api.Client) ([]string, error) {
		rules, err := c.Rules(ctx)
		var names []string
		for _, r := range rules {
			if !slices.Contains(given, r.ID) {
				names = append(names, r.ID+"\t"+r.FromName+" to "+r.ToName)
			}
		}
		return names, err
	})
}

// completeParties completes the two ends of a connection: replicas, services
// and hosts.
func (e *Env) completeParties(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(given) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return e.ask(cmd.Context(), func(ctx context.Context, c *api.Client) ([]string, error) {
		tasks, err := c.Tasks(ctx, "")
		if err != nil {
			return nil, err
		}
		hosts, err := c.Hosts(ctx)
		sortTasks(tasks)
		var names []string
		for _, t := range tasks {
			names = append(names, t.Name)
			if s := t.Service + "." + t.App; !slices.Contains(names, s) {
				names = append(names, s)
			}
		}
		for _, h := range hosts {
			names = append(names, "host:"+h.Name)
		}
		return without(names, given), err
	})
}

// services lists the services of tasks, each once, in the order they come.
func services(tasks []api.Task) []string {
	var out []string
	for _, t := range tasks {
		if !slices.Contains(out, t.Service) {
			out = append(out, t.Service)
		}
	}
	return out
}

func without(names, given []string) []string {
	return slices.DeleteFunc(names, func(n string) bool { return slices.Contains(given, n) })
}
