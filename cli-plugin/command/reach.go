package command

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/engine/connect"
	"clocker.io/clocker/pkg/fleet"
)

// reachFlags name the user's files by which an engine is reached.
type reachFlags struct{ fleet.Access }

// engines are the connections to engines that a verb needs.
type engines struct {
	conns []*connect.Conn
}

func (s *engines) open(ctx context.Context, endpoint string, o connect.Options) (*connect.Conn, error) {
	conn, err := connect.Open(ctx, endpoint, o)
	if err != nil {
		return nil, err
	}
	s.conns = append(s.conns, conn)
	return conn, nil
}

// through opens a connection to the engine of a host through its agent.
func (s *engines) through(ctx context.Context, c *api.Client, host string, o connect.Options) (*connect.Conn, error) {
	conn, err := connect.OpenThrough(ctx, "through its agent", func(ctx context.Context) (net.Conn, error) { return c.HostEngine(ctx, host) }, o)
	if err != nil {
		return nil, err
	}
	s.conns = append(s.conns, conn)
	return conn, nil
}

func (s *engines) close() {
	for _, c := range s.conns {
		_ = c.Close()
	}
}

func (r *reachFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&r.CertDir, "tls-cert-dir", "", "Directory of ca.pem, cert.pem and key.pem for tcp:// (default: $DOCKER_CERT_PATH)")
	f.StringVar(&r.KnownHosts, "ssh-known-hosts", "", "File of host keys for ssh:// (default: ~/.ssh/known_hosts)")
	f.StringVar(&r.Identity, "ssh-identity", "", "Private key for ssh:// (default: the SSH agent's, ~/.ssh/id_*)")
	for _, n := range []string{"ssh-known-hosts", "ssh-identity"} {
		_ = cmd.RegisterFlagCompletionFunc(n, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		})
	}
	_ = cmd.RegisterFlagCompletionFunc("tls-cert-dir", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveFilterDirs
	})
}

// options are the flags as pkg/engine/connect takes them.
func (r reachFlags) options(e *Env) connect.Options {
	return connect.Options{CertDir: r.CertDir, KnownHosts: r.KnownHosts, Identity: r.Identity, Contexts: e.cli}
}

// known are the flags, with what the profile remembers of a host for those
// that are not given.
func (r reachFlags) known(e *Env, p *fleet.Profile, host string) connect.Options {
	was := p.Access[host]
	if r.CertDir == "" {
		r.CertDir = was.CertDir
	}
	if r.KnownHosts == "" {
		r.KnownHosts = was.KnownHosts
	}
	if r.Identity == "" {
		r.Identity = was.Identity
	}
	return r.options(e)
}

// absolute are the files that are used, the environment's where no flag names
// one, by paths that mean the same from every directory.
func (r reachFlags) absolute(getenv func(string) string) (fleet.Access, error) {
	a := r.Access
	for _, f := range []struct {
		path *string
		env  string
	}{{&a.CertDir, "DOCKER_CERT_PATH"}, {&a.KnownHosts, connect.EnvKnownHosts}, {&a.Identity, connect.EnvIdentity}} {
		if *f.path == "" {
			*f.path = getenv(f.env)
		}
	}
	for _, p := range []*string{&a.CertDir, &a.KnownHosts, &a.Identity} {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return a, fmt.Errorf("find %s: %w", *p, err)
		}
		*p = abs
	}
	return a, nil
}

// keyValues reads KEY=VALUE flags; a key alone has an empty value.
func keyValues(what string, flags []string) (map[string]string, error) {
	out := map[string]string{}
	for _, f := range flags {
		k, v, _ := strings.Cut(f, "=")
		if k == "" {
			return nil, invalid("%s %q is not KEY=VALUE", what, f)
		}
		out[k] = v
	}
	return out, nil
}
