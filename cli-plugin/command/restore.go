package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"

	"filippo.io/age"
	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/config"
	"github.com/spf13/cobra"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet"
)

type restoreOptions struct {
	passphraseFile, identity     string
	advertise, name, user        string
	status, settle, force, quiet bool
	noAnnounce                   bool
	reach                        reachFlags
}

func newRestoreCommand(e *Env) *cobra.Command {
	var o restoreOptions
	cmd := &cobra.Command{
		Use:   "restore [OPTIONS] FILE [ENDPOINT]",
		Short: "Bring a fleet back from a backup after all its controllers are lost",
		Long: `Bring a fleet back from a backup after all its controllers are lost.

A controller is made on the engine at ENDPOINT (default: that of the current docker
context) with the state and the authority in FILE. Hosts find it by themselves when
it has the address of a controller they know; else they are told through their
engines ("controller announce" tells those that could not be reached).

Nothing that runs is disturbed. Containers that were deployed, changed or started
after the backup are kept: --status lists them. Deploy their applications again, or
make every host follow the restored state with --settle.`,
		Example: `  docker clocker restore fleet.backup ssh://root@10.0.0.7
  docker clocker restore --status
  docker clocker restore --settle`,
		Args: args(cli.RequiresMaxArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case o.status && o.settle:
				return usageError{errors.New("give --status or --settle")}
			case (o.status || o.settle) != (len(args) == 0):
				return usageError{errors.New("name a file, or give --status or --settle")}
			case o.status:
				return e.with(func(c *api.Client) error { return restoreStatus(cmd.Context(), e, c) })
			case o.settle:
				return e.with(func(c *api.Client) error { return c.Settle(cmd.Context()) })
			}
			endpoint := ""
			if len(args) > 1 {
				endpoint = args[1]
			}
			return runRestore(cmd.Context(), e, args[0], endpoint, o)
		},
		ValidArgsFunction: func(_ *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(given) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveDefault
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.passphraseFile, "passphrase-file", "", "File whose first line is the passphrase")
	f.StringVar(&o.identity, "identity", "", "File of the age identity that opens the backup")
	f.StringVar(&o.advertise, "advertise", "", "Address by which users and hosts reach the controller (default: that of the backup, else chosen)")
	f.StringVar(&o.name, "name", "", "Name of the controller (default: that of the backup)")
	f.StringVar(&o.user, "user", "", `Name of the user whose certificate is made when this machine has none (default "admin")`)
	f.BoolVar(&o.status, "status", false, "List what hosts keep though the restored state wants it otherwise")
	f.BoolVar(&o.settle, "settle", false, "Make every host follow the restored state")
	f.BoolVar(&o.noAnnounce, "no-announce", false, "Do not tell hosts where the controller is")
	f.BoolVarP(&o.force, "force", "f", false, "Replace a controller of the fleet that is on the engine or answers")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Print nothing but errors")
	o.reach.flags(cmd)
	return cmd
}

func runRestore(ctx context.Context, e *Env, file, endpoint string, o restoreOptions) error {
	ids, err := e.identities(o)
	if err != nil {
		return err
	}
	archive, err := fleet.OpenBackup(file, ids...)
	if err != nil {
		return err
	}
	access, err := o.reach.absolute(os.Getenv)
	if err != nil {
		return err
	}
	var reached engines
	defer reached.close()
	conn, err := reached.open(ctx, endpoint, o.reach.options(e))
	if err != nil {
		return err
	}
	access.Endpoint = conn.Endpoint
	show := e.steps("Restoring fleet "+archive.Manifest.Fleet, o.quiet)
	p, err := fleet.Restore(ctx, fleet.RestoreOptions{
		Dir: config.Dir(), Archive: archive, Engine: conn.Client, Endpoint: conn.Endpoint, Access: access,
		Advertise: o.advertise, Name: o.name, User: o.user, Force: o.force, ID: randomID(),
	}, show.add)
	show.close(err)
	if err != nil {
		return err
	}
	if !o.noAnnounce {
		if err := e.announce(ctx, p, nil, announceOptions{quiet: o.quiet, reach: o.reach}); err != nil {
			e.say("%v\nTell them later with: docker clocker controller announce HOST", err)
		}
	}
	if !o.quiet {
		e.say("Fleet %s is as of %s. What was deployed since then is kept: docker clocker restore --status lists it.",
			p.Name, archive.Manifest.CreatedAt.Format("2006-01-02 15:04:05 MST"))
	}
	return nil
}

func (e *Env) identities(o restoreOptions) ([]age.Identity, error) {
	if o.identity != "" {
		f, err := os.Open(o.identity)
		if err != nil {
			return nil, invalid("read identity: %v", err)
		}
		defer func() { _ = f.Close() }() // read only
		ids, err := age.ParseIdentities(f)
		if err != nil {
			return nil, invalid("read identity: %v", err)
		}
		return ids, nil
	}
	pass, err := e.passphrase(o.passphraseFile, false)
	if err != nil {
		return nil, err
	}
	id, err := age.NewScryptIdentity(pass)
	if err != nil {
		return nil, invalid("passphrase: %v", err)
	}
	return []age.Identity{id}, nil
}

// restoreStatus lists the containers that are kept.
func restoreStatus(ctx context.Context, e *Env, c *api.Client) error {
	hosts, err := c.Restored(ctx)
	if err != nil {
		return err
	}
	if len(hosts) == 0 {
		e.say("Every host is as the fleet's state says.")
		return nil
	}
	w := tabwriter.NewWriter(e.cli.Out(), 0, 1, 3, ' ', 0)
	_, _ = fmt.Fprintln(w, "HOST\tCONTAINER\tAPPLICATION\tSERVICE\tKEPT BECAUSE")
	for _, h := range hosts {
		if h.Looked.IsZero() {
			_, _ = fmt.Fprintf(w, "%s\t-\t-\t-\tits agent has not looked yet\n", h.Host)
		}
		for _, k := range h.Kept {
			_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", h.Host, k.Name, k.Application, k.Service, k.Why)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	e.say("Deploy these applications again, or make every host follow the restored state: docker clocker restore --settle")
	return nil
}
