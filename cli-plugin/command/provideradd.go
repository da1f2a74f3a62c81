package command

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet"
	"clocker.io/clocker/pkg/fleet/sshhost"
	"clocker.io/clocker/pkg/record"
)

type providerAddOptions struct {
	name, kind  string
	machines    []string
	labels      []string
	install     bool
	cpu, memory string
	reach       reachFlags
}

func newProviderAddCommand(e *Env) *cobra.Command {
	var o providerAddOptions
	cmd := &cobra.Command{
		Use:   "add [OPTIONS] NAME byon|standby FILE|ENDPOINT [FILE|ENDPOINT...]",
		Short: "Add a provider of hosts",
		Long: `Add a provider of hosts.

"byon" takes machines at ssh://[USER@]HOST[:PORT], each used once at a time; with
--install-engine a Debian or Ubuntu machine without Docker Engine gets one.
"standby" takes engines that wait, at ssh:// or at tcp://HOST:PORT with TLS.

FILE lists machines as for docker clocker host add: lines of "ENDPOINT [NAME]", or
a YAML list of endpoints or of mappings with endpoint, name, labels and hostKey.

The controllers reach the machines themselves, so the private key (without a
passphrase) or the certificates are handed to them. They are kept encrypted to an
identity that etcd does not hold, and are never shown again. Host keys are taken
from the list or from --ssh-known-hosts, and no other key is accepted later.

--cpus and --memory say how large each machine is, for placements and headroom that
count them; else they are taken to be like the fleet's other hosts.`,
		Example: `  docker clocker provider add --ssh-identity fleet_key rack byon machines.yaml
  docker clocker provider add --ssh-identity fleet_key --install-engine --label zone=b bare byon ssh://root@10.0.0.7
  docker clocker provider add --tls-cert-dir ~/certs spare standby tcp://10.0.0.9:2376`,
		Args: args(cli.RequiresMinArgs(3)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.name, o.kind, o.machines = args[0], args[1], args[2:]
			return runProviderAdd(cmd.Context(), e, o)
		},
		ValidArgsFunction: func(_ *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(given) == 1 {
				return []string{"byon", "standby"}, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveDefault
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.labels, "label", nil, "Label of its hosts, KEY=VALUE")
	f.BoolVar(&o.install, "install-engine", false, "Install Docker Engine on machines without one (byon)")
	f.StringVar(&o.cpu, "cpus", "", "CPUs of each machine")
	f.StringVar(&o.memory, "memory", "", "Memory of each machine: 8GiB")
	o.reach.flags(cmd)
	return cmd
}

func runProviderAdd(ctx context.Context, e *Env, o providerAddOptions) error {
	r, err := o.request()
	if err != nil {
		return err
	}
	return e.with(func(c *api.Client) error {
		p, err := c.AddProvider(ctx, r)
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintln(e.cli.Out(), p.Name)
		e.say("provider %s has %d machines, %d of them free", p.Name, len(p.Machines), p.Free)
		return nil
	})
}

// request gathers what the flags, files and keys say; every problem comes at
// once.
func (o providerAddOptions) request() (api.ProviderRequest, error) {
	r := api.ProviderRequest{Name: o.name, Kind: o.kind, InstallEngine: o.install}
	var errs []error
	note := func(err error) { errs = append(errs, err) }
	var err error
	r.Labels, err = keyValues("label", o.labels)
	note(err)
	if o.cpu != "" {
		r.CPU, err = nanoCPUs(o.cpu)
		note(err)
	}
	if o.memory != "" {
		r.Memory, err = size(o.memory)
		note(err)
	}
	files, err := o.reach.absolute(os.Getenv)
	note(err)
	listed, err := hostAddOptions{hosts: o.machines}.listed(os.Stdin)
	note(err)
	overSSH, overTCP := false, false
	for _, l := range listed {
		m := record.ProviderMachine{Endpoint: l.Endpoint, Name: l.Name, HostKey: l.HostKey, Labels: l.Labels}
		if l.Address != "" {
			note(fmt.Errorf("%s: address: a provider's hosts choose theirs", l.At))
		}
		t, err := sshhost.Parse(l.Endpoint)
		if err == nil {
			overSSH = true
			if m.HostKey == "" {
				m.HostKey, err = knownKey(t, files.KnownHosts)
				if err != nil {
					note(fmt.Errorf("%s: %s: %w", l.At, l.Endpoint, err))
				}
			}
		} else {
			overTCP = true
		}
		r.Machines = append(r.Machines, m)
	}
	note(readSecrets(&r, overSSH, overTCP, files))
	if err := errors.Join(errs...); err != nil {
		return r, usageError{err}
	}
	return r, nil
}

// readSecrets reads the files by which the machines are reached.
func readSecrets(r *api.ProviderRequest, overSSH, overTCP bool, files fleet.Access) error {
	var errs []error
	read := func(path string, into *string) {
		b, err := os.ReadFile(path)
		if err != nil {
			errs = append(errs, err)
		}
		*into = string(b)
	}
	if overSSH {
		if files.Identity == "" {
			errs = append(errs, errors.New("the controllers reach these machines by a key of their own: give its private part with --ssh-identity FILE"))
		} else {
			read(files.Identity, &r.SSHKey)
		}
	}
	if overTCP && files.CertDir != "" { // what lacks is told by the controller
		read(filepath.Join(files.CertDir, "ca.pem"), &r.CA)
		read(filepath.Join(files.CertDir, "cert.pem"), &r.Cert)
		read(filepath.Join(files.CertDir, "key.pem"), &r.Key)
	}
	return errors.Join(errs...)
}

// keyOrder is which of a machine's host keys is pinned, the best first.
var keyOrder = []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSA}

// knownKey finds a machine's host key in a known_hosts file, the user's own
// where none is named.
func knownKey(t sshhost.Target, file string) (string, error) {
	if file == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("find known_hosts: %w", err)
		}
		file = filepath.Join(home, ".ssh", "known_hosts")
	}
	known, err := knownhosts.New(file)
	if err != nil {
		return "", fmt.Errorf("its SSH host key is not known: read %s: %w", file, err)
	}
	port := t.Port
	if port == "" {
		port = "22"
	}
	// Asked about a key that nobody has, the file tells those it knows.
	_, other, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", fmt.Errorf("make key: %w", err)
	}
	signer, err := ssh.NewSignerFromKey(other)
	if err != nil {
		return "", fmt.Errorf("make key: %w", err)
	}
	var unknown *knownhosts.KeyError
	err = known(net.JoinHostPort(t.Host, port), &net.TCPAddr{IP: net.IPv4zero}, signer.PublicKey())
	if !errors.As(err, &unknown) || len(unknown.Want) == 0 {
		return "", fmt.Errorf("its SSH host key is not in %s: add it (ssh-keyscan %s), after a look whether it is the right one", file, t.Host)
	}
	rank := func(k knownhosts.KnownKey) int {
		if i := slices.Index(keyOrder, k.Key.Type()); i >= 0 {
			return i
		}
		return len(keyOrder)
	}
	best := slices.MinFunc(unknown.Want, func(a, b knownhosts.KnownKey) int { return rank(a) - rank(b) })
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(best.Key))), nil
}
