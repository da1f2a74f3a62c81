package command

import (
	"context"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/pkg/controller"
	"clocker.io/clocker/pkg/fleet/controllerconfig"
)

func newServeCommand(e *Env) *cobra.Command {
	var (
		o   controller.Options
		log logFlags
	)
	cmd := daemonCommand(&cobra.Command{
		Use:   "serve [OPTIONS]",
		Short: "Run the controller of a fleet",
		Args:  args(cli.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.Log, err = log.logger("controller"); err != nil {
				return err
			}
			o.Fleet = e.fleet
			return untilSignal(cmd.Context(), func(ctx context.Context) error { return controller.Run(ctx, o) })
		},
	})
	f := cmd.Flags()
	f.StringVar(&o.ConfigDir, "config", controllerconfig.ConfigDir, "Directory of the configuration")
	f.StringVar(&o.DataDir, "data", controllerconfig.DataDir, "Directory of the data")
	f.StringVar(&o.Listen, "listen", "", "Address and port to listen on (default: what the configuration says)")
	f.StringVar(&o.Advertise, "advertise", "", "Address by which others reach it (default: what the configuration says)")
	f.StringSliceVar(&o.Etcd, "etcd", nil, "URLs of an etcd cluster that is already there")
	f.StringVar(&o.EtcdCA, "etcd-ca", "", "CA certificate of that cluster")
	f.StringVar(&o.EtcdCert, "etcd-cert", "", "Client certificate for that cluster")
	f.StringVar(&o.EtcdKey, "etcd-key", "", "Key of that certificate")
	f.StringVar(&o.DNSUpdate, "dns-update", "",
		"DNS server that names of applications are kept in by RFC 2136: server=ADDRESS,zone=NAME,key-file=FILE[,reverse=ZONE]")
	log.flags(cmd)
	return cmd
}
