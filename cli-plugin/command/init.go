package command

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/config"
	"github.com/spf13/cobra"

	"clocker.io/clocker/pkg/fleet"
)

type initOptions struct {
	name, endpoint, advertise   string
	user, hostName              string
	labels, etcd                []string
	etcdCA, etcdCert, etcdKey   string
	apiPort, etcdPort, peerPort int
	controllerOnly, noContext   bool
	quiet                       bool
	reach                       reachFlags
}

func newInitCommand(e *Env) *cobra.Command {
	var o initOptions
	cmd := &cobra.Command{
		Use:   "init [OPTIONS] [ENDPOINT]",
		Short: "Make a fleet",
		Long: `Make a fleet: start its controller on an engine and make that engine the
fleet's first host.

ENDPOINT is how the engine is reached: ssh://[USER@]HOST[:PORT], tcp://HOST:PORT
with TLS, unix:///PATH or context:NAME; without one it is the engine of the
current docker context. Run again, it goes on where it was interrupted.`,
		Example: `  docker clocker init
  docker clocker init --fleet prod ssh://root@10.0.0.7
  docker clocker init --etcd https://10.0.0.1:2379,https://10.0.0.2:2379 --etcd-ca ca.pem`,
		Args: args(cli.RequiresMaxArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.endpoint = strings.Join(args, "")
			o.name = e.fleetName()
			return runInit(cmd.Context(), e, o)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.StringVar(&o.advertise, "advertise", "", "Address by which users and hosts reach the controller (default: chosen)")
	f.StringVar(&o.user, "user", "", `Name of the first user (default "admin")`)
	f.StringVar(&o.hostName, "host-name", "", "Name of the first host (default: its host name)")
	f.StringArrayVar(&o.labels, "label", nil, "Label of the first host, KEY=VALUE")
	f.BoolVar(&o.controllerOnly, "controller-only", false, "Do not make the engine a host")
	f.BoolVar(&o.noContext, "no-context", false, "Write no docker context for the first host")
	f.IntVar(&o.apiPort, "port", 0, "Port of the controller (default 7480)")
	f.IntVar(&o.etcdPort, "etcd-port", 0, "Port of the embedded etcd for clients (default 7481)")
	f.IntVar(&o.peerPort, "etcd-peer-port", 0, "Port of the embedded etcd for its peers (default 7482)")
	f.StringSliceVar(&o.etcd, "etcd", nil, "URLs of an etcd cluster that is already there")
	f.StringVar(&o.etcdCA, "etcd-ca", "", "CA certificate of that cluster")
	f.StringVar(&o.etcdCert, "etcd-cert", "", "Client certificate for that cluster")
	f.StringVar(&o.etcdKey, "etcd-key", "", "Key of that certificate")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Print only the fleet's name")
	o.reach.flags(cmd)
	return cmd
}

func runInit(ctx context.Context, e *Env, o initOptions) error {
	labels, err := keyValues("label", o.labels)
	if err != nil {
		return err
	}
	etcd, err := o.cluster()
	if err != nil {
		return err
	}
	access, err := o.reach.absolute(os.Getenv)
	if err != nil {
		return err
	}
	var reached engines
	defer reached.close()
	conn, err := reached.open(ctx, o.endpoint, o.reach.options(e))
	if err != nil {
		return err
	}
	show := e.steps("Making a fleet", o.quiet)
	p, err := fleet.Init(ctx, fleet.InitOptions{
		Dir: config.Dir(), Name: o.name, Engine: conn.Client, Endpoint: conn.Endpoint, Access: access,
		Advertise: o.advertise, Ports: fleet.Ports{API: o.apiPort, Etcd: o.etcdPort, EtcdPeer: o.peerPort},
		Etcd: etcd, User: o.user, ControllerOnly: o.controllerOnly, HostName: o.hostName, Labels: labels,
	}, show.add)
	show.close(err)
	if err != nil {
		return err
	}
	if err := o.writeContext(ctx, e, p); err != nil {
		return err
	}
	if o.quiet {
		_, err = fmt.Fprintln(e.cli.Out(), p.Name)
		return err
	}
	e.say("Fleet %s is ready at %s.\nAdd hosts with:        docker clocker host add ssh://USER@HOST\nDeploy with:           docker clocker deploy FILE", p.Name, strings.Join(p.Controllers, ", "))
	return nil
}

// writeContext writes the docker context of the first host: that on the engine
// of the controller. The controller is asked for its name, which init may have
// been told in an earlier run.
func (o initOptions) writeContext(ctx context.Context, e *Env, p *fleet.Profile) error {
	if o.controllerOnly || o.noContext {
		return nil
	}
	c, err := p.Client()
	if err != nil {
		return err
	}
	defer c.Close()
	hosts, err := c.Hosts(ctx)
	if err != nil {
		return err
	}
	for _, h := range hosts {
		if h.Endpoint != p.Access[""].Endpoint {
			continue
		}
		return e.writeContext(p.Name, h.Name, p.Access[""])
	}
	return nil
}

// cluster reads the files of the user's own etcd; nil when none is named.
func (o initOptions) cluster() (*fleet.EtcdCluster, error) {
	if len(o.etcd) == 0 {
		if o.etcdCA+o.etcdCert+o.etcdKey != "" {
			return nil, invalid("--etcd-ca, --etcd-cert and --etcd-key go with --etcd")
		}
		return nil, nil
	}
	c := &fleet.EtcdCluster{Endpoints: o.etcd}
	for _, f := range []struct {
		path string
		to   *[]byte
	}{{o.etcdCA, &c.CA}, {o.etcdCert, &c.Cert}, {o.etcdKey, &c.Key}} {
		if f.path == "" {
			continue
		}
		b, err := os.ReadFile(f.path)
		if err != nil {
			return nil, invalid("read etcd's certificates: %v", err)
		}
		*f.to = b
	}
	return c, nil
}
