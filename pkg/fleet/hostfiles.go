package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/moby/moby/client"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet/preflight"
	"clocker.io/clocker/pkg/hostconfig"
)

// pluginSockets is where engines look for plugins, and ours puts its socket.
const pluginSockets = "/run/docker/plugins"

// The names of a host's files in its /etc/clocker.
const (
	hostFile     = "host.json"
	hostCA       = "ca.pem"
	hostCert     = "cert.pem"
	hostKey      = "key.pem"
	hostEtcdCA   = "etcd-ca.pem"
	hostEtcdCert = "etcd-cert.pem"
	hostEtcdKey  = "etcd-key.pem"
)

// identity is what a host was told.
type identity struct {
	// hash changes when the host's files do.
	hash string
	// adopted is the record that is on the host; nil when there is none.
	adopted *preflight.Adopted
}

// carrier is a container, never started, through which files get onto the
// machine: creating it makes the directories, copying into it fills them.
// Agent and plugin have /etc/clocker read-only, so it cannot go through them.
func (a *adoption) carrier(ctx context.Context) (id string, err error) {
	p := probe{
		image: a.machine.image, args: []string{"version"},
		binds: []string{
			hostconfig.Dir + ":" + hostconfig.Dir,
			hostconfig.StateDir + ":" + hostconfig.StateDir,
			hostconfig.RunDir + ":" + hostconfig.RunDir,
			pluginSockets + ":" + pluginSockets,
		},
	}
	return p.create(ctx, a.e)
}

// writeFiles puts configuration and credentials onto the machine. host.json
// comes last: without it the machine is no member.
func (a *adoption) writeFiles(ctx context.Context, cred api.HostCredentials, key []byte) (*identity, error) {
	cfg := hostconfig.Config{
		Fleet: cred.Fleet, HostID: cred.ID, Name: a.o.Name, Address: a.address,
		Etcd: cred.Etcd, Controllers: cred.Controllers,
		CAFile: hostCA, CertFile: hostCert, KeyFile: hostKey,
	}
	files := map[string]file{
		hostCA:   {[]byte(cred.CA), 0o644},
		hostCert: {[]byte(cred.Certificate), 0o644},
		hostKey:  {key, 0o600},
	}
	for _, f := range []struct {
		text, name string
		field      *string
		mode       file
	}{
		{cred.EtcdCA, hostEtcdCA, &cfg.EtcdCAFile, file{mode: 0o644}},
		{cred.EtcdCert, hostEtcdCert, &cfg.EtcdCertFile, file{mode: 0o644}},
		{cred.EtcdKey, hostEtcdKey, &cfg.EtcdKeyFile, file{mode: 0o600}},
	} {
		if f.text != "" {
			*f.field = f.name
			files[f.name] = file{[]byte(f.text), f.mode.mode}
		}
	}
	text, err := json.MarshalIndent(cfg, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write host configuration: %w", err)
	}
	adopted := a.member().Adopted
	if adopted == nil {
		adopted = &preflight.Adopted{Version: a.o.Kit.Version}
		if adopted.GatewayBridge, err = hasNetwork(ctx, a.e, gatewayBridge); err != nil {
			return nil, err
		}
	}
	if a.fresh {
		a.undo.add("files", func(ctx context.Context) error { return cleanHost(ctx, a.e, a.machine.image) })
	}
	id, err := a.carrier(ctx)
	if err != nil {
		return nil, err
	}
	defer discard(ctx, a.e, id)
	at := a.o.Now()
	if err := put(ctx, a.e, id, hostconfig.Dir, files, at); err != nil {
		return nil, err
	}
	if err := a.record(ctx, id, adopted); err != nil {
		return nil, err
	}
	if err := put(ctx, a.e, id, hostconfig.Dir, map[string]file{hostFile: {append(text, '\n'), 0o644}}, at); err != nil {
		return nil, err
	}
	return &identity{hash: specHash(cred.ID, text, cred.Certificate), adopted: adopted}, nil
}

// record writes what must be remembered to undo the adoption; id is a carrier.
func (a *adoption) record(ctx context.Context, id string, r *preflight.Adopted) error {
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write record of adoption: %w", err)
	}
	return put(ctx, a.e, id, hostconfig.Dir, map[string]file{preflight.AdoptedFile: {append(text, '\n'), 0o644}}, a.o.Now())
}

// gatewayBridge is the network that engines make for containers whose own
// networks have no way out.
const gatewayBridge = "docker_gwbridge"

func hasNetwork(ctx context.Context, e *client.Client, name string) (bool, error) {
	l, err := e.NetworkList(ctx, client.NetworkListOptions{Filters: make(client.Filters).Add("name", name)})
	if err != nil {
		return false, fmt.Errorf("list networks: %w", err)
	}
	for _, n := range l.Items {
		if n.Name == name {
			return true, nil
		}
	}
	return false, nil
}

// cleanTime bounds how long taking kernel state and files away may last.
const cleanTime = 30 * time.Second
