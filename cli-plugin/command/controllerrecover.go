package command

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/config"
	"github.com/spf13/cobra"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet"
)

func randomID() string {
	b := make([]byte, 6)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

type recoverOptions struct {
	force, quiet bool
	reach        reachFlags
}

func newControllerRecoverCommand(e *Env) *cobra.Command {
	var o recoverOptions
	cmd := &cobra.Command{
		Use:   "recover [OPTIONS] [ENDPOINT]",
		Short: "Go on with one controller after the majority was lost for good",
		Long: `Go on with one controller after the majority was lost for good.

ENDPOINT is how the engine of a controller that survived is reached; without one
it is the engine that the fleet was made on. That controller's member of etcd
forgets the others. Add others with "controller add" afterwards. The lost ones
must never be started again with their old data: remove their containers and
volumes should they come back.`,
		Example: `  docker clocker controller recover ssh://root@10.0.0.8`,
		Args:    args(cli.RequiresMaxArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runRecover(cmd.Context(), e, strings.Join(args, ""), o)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().BoolVarP(&o.force, "force", "f", false, "Do not ask, and go on though the fleet still has a majority")
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "Print nothing but errors")
	o.reach.flags(cmd)
	return cmd
}

func runRecover(ctx context.Context, e *Env, endpoint string, o recoverOptions) error {
	p, err := e.profile()
	if err != nil {
		return err
	}
	if !o.force {
		if err := lostMajority(ctx, p); err != nil {
			return err
		}
		if err := e.confirm("Go on with this controller alone? The others must never be started again with their old data."); err != nil {
			return err
		}
	}
	access, err := o.reach.absolute(os.Getenv)
	if err != nil {
		return err
	}
	if access.Endpoint = endpoint; endpoint == "" {
		access = p.Access[""]
	}
	var reached engines
	defer reached.close()
	conn, err := reached.open(ctx, access.Endpoint, reachFlags{access}.options(e))
	if err != nil {
		return err
	}
	show := e.steps("Recovering fleet "+p.Name, o.quiet)
	err = fleet.RecoverController(ctx, fleet.RecoverOptions{Dir: config.Dir(), Profile: p, Engine: conn.Client, Access: access, ID: randomID()}, show.add)
	show.close(err)
	if err != nil {
		return err
	}
	if !o.quiet {
		e.say("Fleet %s has one controller. Add others with: docker clocker controller add HOST", p.Name)
	}
	return nil
}

// lostMajority refuses a recovery that is not needed.
func lostMajority(ctx context.Context, p *fleet.Profile) error {
	c, err := p.Client()
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	all, err := c.FleetControllers(ctx)
	if err != nil {
		return nil // as it is when a recovery is needed
	}
	voters, healthy := 0, 0
	for _, x := range all {
		if x.Etcd != nil && x.Etcd.State == api.MemberVoter {
			voters++
			if x.Etcd.Healthy {
				healthy++
			}
		}
	}
	if healthy > voters/2 {
		return verdict{errConflict, fmt.Sprintf("%d of the %d members of etcd are up, which is a majority: nothing is to be recovered. Remove dead controllers with docker clocker controller rm --force", healthy, voters)}
	}
	return nil
}

type announceOptions struct {
	quiet bool
	reach reachFlags
}

func newControllerAnnounceCommand(e *Env) *cobra.Command {
	var o announceOptions
	cmd := &cobra.Command{
		Use:   "announce [OPTIONS] [HOST...]",
		Short: "Tell hosts where the controllers are, through their engines",
		Long: `Tell hosts where the controllers are, through their engines.

Hosts learn of controllers that are added or removed by themselves. This is for
hosts all of whose controllers are gone, as after a restore at another address.
Without names, every host of the fleet is told.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := e.profile()
			if err != nil {
				return err
			}
			return e.announce(cmd.Context(), p, args, o)
		},
		ValidArgsFunction: e.completeHosts,
	}
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "Print nothing but errors")
	o.reach.flags(cmd)
	return cmd
}

func (e *Env) announce(ctx context.Context, p *fleet.Profile, names []string, o announceOptions) error {
	c, err := p.Client()
	if err != nil {
		return err
	}
	defer c.Close()
	info, err := c.Info(ctx)
	if err != nil {
		return err
	}
	etcd, urls := info.Etcd, []string{}
	all, err := c.FleetControllers(ctx)
	if err != nil {
		return err
	}
	if info.EtcdKind == "embedded" {
		etcd = nil
	}
	for _, x := range all {
		urls = append(urls, x.URL)
		if x.EtcdURL != "" {
			etcd = append(etcd, x.EtcdURL)
		}
	}
	if len(etcd) == 0 {
		etcd = info.Etcd
	}
	if len(urls) == 0 {
		urls = p.Controllers
	}
	hosts, err := c.Hosts(ctx)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		for _, h := range hosts {
			names = append(names, h.Name)
		}
	}
	kit, err := fleet.NewKit(fleet.Build{})
	if err != nil {
		return err
	}
	var reached engines
	defer reached.close()
	show := e.steps("Telling hosts", o.quiet)
	var errs []error
	for _, name := range names {
		endpoint := p.Access[name].Endpoint
		for _, h := range hosts {
			if h.Name == name && endpoint == "" {
				endpoint = h.Endpoint
			}
		}
		conn, err := reached.open(ctx, endpoint, o.reach.known(e, p, name))
		if err == nil {
			err = fleet.Rehome(ctx, fleet.RehomeOptions{
				Fleet: p.Name, Host: name, CA: p.CA, Etcd: etcd, Controllers: urls, Engine: conn.Client, Kit: kit,
			}, show.add)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("host %s was not told: %w", name, err))
		}
	}
	err = errors.Join(errs...)
	show.close(err)
	return err
}
