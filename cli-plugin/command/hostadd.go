package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/config"
	"github.com/spf13/cobra"

	"clocker.io/clocker/cli-plugin/formatter"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet"
	"clocker.io/clocker/pkg/fleet/sshhost"
)

type hostAddOptions struct {
	hosts         []string
	name, address string
	labels        []string
	reach         reachFlags
	install, key  string
	format        string
	preflight     bool
	force, quiet  bool
	noContext     bool
}

// distribution is the value of --install-engine that names no repository.
const distribution = "distribution"

func newHostAddCommand(e *Env) *cobra.Command {
	var o hostAddOptions
	cmd := &cobra.Command{
		Use:   "add [OPTIONS] ENDPOINT|FILE [ENDPOINT|FILE...]",
		Short: "Add Docker hosts to the fleet",
		Long: `Add Docker hosts to the fleet.

ENDPOINT is how an engine is reached from here: ssh://[USER@]HOST[:PORT],
tcp://HOST:PORT with TLS, unix:///PATH or context:NAME. FILE lists several (- is
standard input): lines of "ENDPOINT [NAME]", or a YAML list of endpoints or of
mappings with endpoint, name, address, labels and hostKey.

All machines are looked at before anything is done to any, and every problem is
told at once; --preflight only looks. Image, plugin and certificates are copied
through the engine's own API: no registry is needed. An engine that runs is
never restarted, and containers that are not Clocker's are never touched.

With --install-engine a Debian or Ubuntu machine that is reached over SSH and has
no engine gets one, from its own package sources or a given repository.

What was interrupted goes on when the command is given again.`,
		Example: `  docker clocker host add ssh://root@10.0.0.7 ssh://root@10.0.0.8
  docker clocker host add --preflight hosts.yaml
  docker clocker host add --install-engine ssh://admin@10.0.0.9
  docker clocker host add --install-engine=https://download.docker.com/linux/debian --install-engine-key docker.asc ssh://root@10.0.0.9
  docker clocker host add --name big --label disk=ssd --tls-cert-dir ~/certs tcp://10.0.0.10:2376`,
		Args: args(cli.RequiresMinArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.hosts = args
			return runHostAdd(cmd.Context(), e, cmd.InOrStdin(), o)
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault // files
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "", "Name of the host (default: its host name)")
	f.StringVar(&o.address, "address", "", "Address by which the other hosts reach it (default: chosen)")
	f.StringArrayVar(&o.labels, "label", nil, "Label for placement, KEY=VALUE")
	f.BoolVar(&o.preflight, "preflight", false, "Only look at the machines and show what was found")
	f.StringVar(&o.install, "install-engine", "", "Install Docker Engine where there is none, from the distribution or from a repository (URL, or a line of sources.list)")
	f.Lookup("install-engine").NoOptDefVal = distribution
	f.StringVar(&o.key, "install-engine-key", "", "File of the OpenPGP key that signs that repository")
	f.StringVar(&o.format, "format", "", `With --preflight, format output: "table", "json" or a Go TEMPLATE`)
	f.BoolVar(&o.noContext, "no-context", false, "Write no docker contexts for the hosts")
	f.BoolVarP(&o.force, "force", "f", false, "Take a machine over that says it belongs to another fleet")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Print only the hosts' names")
	o.reach.flags(cmd)
	return cmd
}

// listed are the machines that the arguments name; problems of all files come
// at once.
func (o hostAddOptions) listed(stdin io.Reader) ([]fleet.Listed, error) {
	var out []fleet.Listed
	var errs []error
	for _, a := range o.hosts {
		if a != "-" && !fleet.IsList(a) {
			out = append(out, fleet.Listed{Endpoint: a, At: a})
			continue
		}
		in, name := stdin, "standard input"
		if a != "-" {
			f, err := os.Open(a)
			if err != nil {
				errs = append(errs, fmt.Errorf("%q is neither an endpoint (ssh://, tcp://, unix://, context:) nor a file: %w", a, err))
				continue
			}
			defer func() { _ = f.Close() }() // read only
			in, name = f, a
		}
		l, err := fleet.ReadList(in, name)
		errs = append(errs, err)
		out = append(out, l...)
	}
	seen := map[string]string{}
	for _, h := range out {
		if at, ok := seen[h.Endpoint]; ok && at != h.At {
			errs = append(errs, fmt.Errorf("%s: %s stands at %s already", h.At, h.Endpoint, at))
		}
		seen[h.Endpoint] = h.At
	}
	if err := errors.Join(errs...); err != nil {
		return nil, usageError{err}
	}
	if len(out) > 1 && (o.name != "" || o.address != "") {
		return nil, usageError{errors.New("--name and --address are for one host: add the hosts one by one, or list them in a file")}
	}
	return out, nil
}

// source is where an engine comes from; nil when none is asked for.
func (o hostAddOptions) source() (*fleet.EngineSource, error) {
	if o.install == "" {
		if o.key != "" {
			return nil, usageError{errors.New("--install-engine-key goes with --install-engine=REPOSITORY")}
		}
		return nil, nil
	}
	s := &fleet.EngineSource{}
	if o.install != distribution {
		s.Repository = o.install
	}
	if o.key != "" {
		b, err := os.ReadFile(o.key)
		if err != nil {
			return nil, invalid("read the repository's key: %v", err)
		}
		s.Key = b
	}
	return s, nil
}

func runHostAdd(ctx context.Context, e *Env, stdin io.Reader, o hostAddOptions) error {
	labels, err := keyValues("label", o.labels)
	if err != nil {
		return err
	}
	list, err := o.listed(stdin)
	if err != nil {
		return err
	}
	source, err := o.source()
	if err != nil {
		return err
	}
	p, err := e.profile()
	if err != nil {
		return err
	}
	c, err := p.Client()
	if err != nil {
		return err
	}
	defer c.Close()
	kit, err := fleet.NewKit(fleet.Build{})
	if err != nil {
		return err
	}
	var reached engines
	defer reached.close()
	var add []fleet.AdoptOptions
	var errs []error
	for _, h := range list {
		a := fleet.AdoptOptions{Install: source, SSH: o.ssh(h)}
		a.AddOptions = fleet.AddOptions{
			Controller: c, Fleet: p.Name, CA: p.CA, Endpoint: h.Endpoint,
			Name: first(o.name, h.Name), Address: first(o.address, h.Address), Labels: merged(labels, h.Labels), Kit: kit, Force: o.force,
		}
		if !strings.HasPrefix(h.Endpoint, "ssh://") {
			conn, err := reached.open(ctx, h.Endpoint, o.reach.options(e))
			if err != nil {
				errs = append(errs, err)
				continue
			}
			a.Engine, a.Endpoint = conn.Client, conn.Endpoint
		}
		add = append(add, a)
	}
	if o.preflight {
		return o.look(ctx, e, add, errs)
	}
	if len(errs) > 0 { // before anything is done to the others, with what they say
		_, err := fleet.PreflightAll(ctx, add, nil)
		return errors.Join(append(errs, err)...)
	}
	show := e.steps("Adding to fleet "+p.Name, o.quiet)
	hosts, err := fleet.AdoptAll(ctx, add, show.add)
	show.close(err)
	for _, h := range hosts {
		if rerr := o.remember(e, p, h); err == nil {
			err = rerr
		}
		if o.quiet {
			_, _ = fmt.Fprintln(e.cli.Out(), h.Name)
		} else {
			e.say("%s (%s) is a host of fleet %s", h.Name, h.Address, p.Name)
		}
	}
	return err
}

// look shows what speaks for and against each machine.
func (o hostAddOptions) look(ctx context.Context, e *Env, add []fleet.AdoptOptions, errs []error) error {
	show := e.steps("Looking", o.quiet)
	reports, err := fleet.PreflightAll(ctx, add, show.add)
	show.close(err)
	fo := formatter.Options{Out: e.cli.Out(), Format: o.format, NoTrunc: true, Now: e.clock.Now()}
	if ferr := formatter.Preflight(fo, reports); ferr != nil {
		return ferr
	}
	if err := errors.Join(append(errs, err)...); err != nil {
		return err
	}
	for _, r := range reports {
		if r.Refused() {
			return statusError(ExitFailed) // the table says why
		}
	}
	return nil
}

// ssh are the keys for a machine.
func (o hostAddOptions) ssh(h fleet.Listed) sshhost.Options {
	return sshhost.Options{Identity: o.reach.Identity, KnownHosts: o.reach.KnownHosts, HostKey: h.HostKey}
}

// remember notes how a host is reached, in the profile and as a docker
// context.
func (o hostAddOptions) remember(e *Env, p *fleet.Profile, h api.Host) error {
	a, err := o.reach.absolute(os.Getenv)
	if err != nil {
		return err
	}
	a.Endpoint = h.Endpoint
	if err := fleet.Remember(config.Dir(), p.Name, h.Name, a); err != nil {
		return err
	}
	if o.noContext {
		return nil
	}
	return e.writeContext(p.Name, h.Name, a)
}

// writeContext writes a host's docker context. One that somebody else made is
// told of and left alone.
func (e *Env) writeContext(fleetName, host string, a fleet.Access) error {
	if !strings.HasPrefix(a.Endpoint, "tcp://") {
		a.CertDir = ""
	}
	_, err := fleet.SaveContext(e.cli.ContextStore(), fleetName, host, a, contextMetadata)
	if errors.Is(err, fleet.ErrNotOurs) {
		e.say("note: %v", err)
		return nil
	}
	return err
}

func contextMetadata(description string, fields map[string]any) any {
	return command.DockerContext{Description: description, AdditionalFields: fields}
}

// first is the first text that is not empty.
func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// merged are the labels of all; a later one wins.
func merged(all ...map[string]string) map[string]string {
	out := map[string]string{}
	for _, l := range all {
		maps.Copy(out, l)
	}
	return out
}
