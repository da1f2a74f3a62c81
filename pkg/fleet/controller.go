package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/fleet/controllerconfig"
	"clocker.io/clocker/pkg/record"
)

// found is what Init finds on the engine and on the user's machine.
type found struct {
	// container is the controller's; nil when there is none.
	container *container.InspectResponse
	running   bool
	// volumes are there, with or without the container.
	volumes bool
	// profile is the user's; nil when there is none.
	profile *Profile
	// config and sealed are what the volumes hold; nil when they are not
	// complete, as after an interruption.
	config *controllerconfig.Config
	sealed *ca.Sealed
}

// find looks for a controller on the engine and for the user's profile, and
// refuses what belongs to another fleet.
func (i *initiation) find(ctx context.Context) (found, error) {
	var f found
	c, err := inspect(ctx, i.e, ControllerContainer)
	if err != nil {
		return f, err
	}
	if c != nil {
		if name := label(c, LabelFleet); name != i.o.Name {
			return f, i.otherFleet(name)
		}
		f.container, f.running = c, c.State != nil && c.State.Running
	}
	for _, name := range []string{DataVolume, ConfigVolume} {
		v, err := i.e.VolumeInspect(ctx, name, client.VolumeInspectOptions{})
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return f, fmt.Errorf("inspect volume %s: %w", name, err)
		}
		if name := v.Volume.Labels[LabelFleet]; name != i.o.Name {
			return f, i.otherFleet(name)
		}
		f.volumes = true
	}
	p, err := Open(i.o.Dir, i.o.Name)
	switch {
	case err == nil:
		f.profile = p
	case !errors.Is(err, ErrNoFleet) && !errors.Is(err, fs.ErrNotExist):
		return f, err
	}
	return f, nil
}

func (i *initiation) otherFleet(name string) error {
	if name == "" {
		return fmt.Errorf("%s: %w: it has a container or volume called %s that this program did not make: rename or remove it",
			i.subject(), ErrOtherFleet, ControllerContainer)
	}
	return fmt.Errorf("%s: %w: it carries the controller of fleet %s: use that one (--fleet %s), or another engine",
		i.subject(), ErrOtherFleet, name, name)
}

// controller brings the controller about and returns the user's profile.
func (i *initiation) controller(ctx context.Context, f found) (*Profile, error) {
	if f.volumes {
		if err := i.readVolumes(ctx, &f); err != nil {
			return nil, err
		}
	}
	switch {
	case f.config != nil && f.profile != nil && sameCA(f.profile.CA, f.sealed.Certificate):
		p := f.profile
		if p.Access == nil {
			p.Access = map[string]Access{}
		}
		p.Access[""] = i.o.Access
		// Others may have been added since.
		if url := controllerURL(*f.config); !slices.Contains(p.Controllers, url) {
			p.Controllers = append(p.Controllers, url)
		}
		i.say(StepCertificate, Kept, "certificates of user %s are there", p.User)
		return p, i.start(ctx, f, *f.config)
	case f.config != nil:
		return i.recoverProfile(ctx, f)
	case f.profile != nil && !f.profile.Making:
		return nil, fmt.Errorf("%s: no controller of fleet %s is there, but this machine knows it at %s: give another --fleet, or forget it with docker clocker fleet forget %s",
			i.subject(), i.o.Name, f.profile.Controllers[0], i.o.Name)
	}
	if f.volumes || f.container != nil {
		i.say(StepController, Note, "an earlier init was interrupted: starting again")
		if err := removeController(ctx, i.e); err != nil {
			return nil, err
		}
	}
	return i.create(ctx)
}

// recoverProfile makes the user a new certificate from the authority that the
// volumes hold: who may use the engine may use all that is on it anyway.
func (i *initiation) recoverProfile(ctx context.Context, f found) (*Profile, error) {
	if f.profile != nil {
		return nil, fmt.Errorf("%s: fleet %s there is not the one of that name which this machine knows, at %s: give another --fleet, or forget that one with docker clocker fleet forget %s",
			i.subject(), i.o.Name, f.profile.Controllers[0], i.o.Name)
	}
	a, err := f.sealed.Open(i.o.Now)
	if err != nil {
		return nil, err
	}
	p, err := i.makeProfile(a, *f.config)
	if err != nil {
		return nil, err
	}
	i.undo.add("profile", func(context.Context) error { return Remove(i.o.Dir, i.o.Name) })
	if err := p.Save(i.o.Dir); err != nil {
		return nil, err
	}
	i.say(StepCertificate, Done, "user %s has a new certificate for the fleet that is there", p.User)
	return p, i.start(ctx, f, *f.config)
}

// config is the configuration that Init gives a controller.
func (i *initiation) config(advertise string) controllerconfig.Config {
	or := func(v, d int) int {
		if v != 0 {
			return v
		}
		return d
	}
	c := controllerconfig.Config{
		Fleet: i.o.Name, Name: ControllerContainer, Advertise: advertise,
		APIPort:      or(i.o.Ports.API, controllerconfig.APIPort),
		EtcdPort:     or(i.o.Ports.Etcd, controllerconfig.EtcdPort),
		EtcdPeerPort: or(i.o.Ports.EtcdPeer, controllerconfig.EtcdPeerPort),
		CreatedAt:    i.o.Now().UTC().Truncate(time.Second),
	}
	if i.o.Etcd != nil {
		c.Etcd = i.o.Etcd.Endpoints
		c.EtcdTLS = len(i.o.Etcd.CA) > 0
		c.EtcdClientCert = len(i.o.Etcd.Cert) > 0
	}
	return c
}

// create makes everything new: certificates, profile, volumes, container.
func (i *initiation) create(ctx context.Context) (*Profile, error) {
	facts := i.machine.facts
	advertise, err := ChooseAddress(ctx, i.o.Advertise, i.o.Endpoint, facts, true, net.DefaultResolver)
	if err != nil {
		return nil, err
	}
	cfg := i.config(advertise)
	cfg.Name = HostName(facts.Hostname)
	if cfg.Name == "" {
		cfg.Name = "controller"
	}
	cfg.SANs = i.sans(advertise, cfg.Name)
	cfg.Endpoint = i.o.Endpoint
	if !i.o.ControllerOnly {
		if cfg.Host = i.o.HostName; cfg.Host == "" {
			cfg.Host = HostName(facts.Hostname)
		}
	}
	p, files, sealed, err := i.makeCredentials(cfg)
	if err != nil {
		return nil, err
	}
	i.undo.add("profile", func(context.Context) error { return Remove(i.o.Dir, i.o.Name) })
	if err := p.Save(i.o.Dir); err != nil {
		return nil, err
	}
	i.say(StepCertificate, Done, "certificate authority made, user %s has a certificate", p.User)
	if err := i.install(ctx, cfg, files, map[string]file{ca.SealedKeyFile: {sealed.Key, 0o600}}); err != nil {
		return nil, err
	}
	i.say(StepController, Done, "controller started on %s", facts.Hostname)
	return p, nil
}

// sans are the names and addresses in the certificate of a controller there.
func (i *initiation) sans(advertise, name string) []string {
	out := []string{advertise, "localhost", "127.0.0.1", "::1", name}
	for _, a := range i.machine.facts.Addresses {
		if !bridgeOfEngine(a.Link) {
			out = append(out, a.Address.Addr().String())
		}
	}
	return out
}

// install makes a controller's volumes and container, fills them and starts
// it. config.json comes last: volumes without it are not complete.
func (i *initiation) install(ctx context.Context, cfg controllerconfig.Config, files, data map[string]file, more ...func(context.Context) error) error {
	for _, name := range []string{DataVolume, ConfigVolume} {
		if _, err := i.e.VolumeCreate(ctx, client.VolumeCreateOptions{
			Name: name, Labels: map[string]string{LabelFleet: i.o.Name, LabelSystem: SystemController},
		}); err != nil {
			return fmt.Errorf("create volume %s: %w", name, err)
		}
	}
	err := i.createContainer(ctx, cfg)
	if !errdefs.IsConflict(err) {
		// A container that somebody else has just made stays theirs.
		i.undo.add("controller", func(ctx context.Context) error { return removeController(ctx, i.e) })
	}
	if err != nil {
		return err
	}
	at := i.o.Now()
	if err := put(ctx, i.e, ControllerContainer, controllerconfig.DataDir, data, at); err != nil {
		return err
	}
	for _, f := range more {
		if err := f(ctx); err != nil {
			return err
		}
	}
	config := map[string]file{controllerconfig.File: files[controllerconfig.File]}
	delete(files, controllerconfig.File)
	for _, part := range []map[string]file{files, config} {
		if err := put(ctx, i.e, ControllerContainer, controllerconfig.ConfigDir, part, at); err != nil {
			return err
		}
	}
	return i.startContainer(ctx)
}

// controllerFiles are those of the configuration directory.
func controllerFiles(a *ca.Authority, sealed ca.Sealed, cfg controllerconfig.Config, etcd *EtcdCluster) (map[string]file, error) {
	text, err := json.MarshalIndent(cfg, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write controller configuration: %w", err)
	}
	out := map[string]file{
		controllerconfig.File: {append(text, '\n'), 0o644},
		ca.CertificateFile:    {sealed.Certificate, 0o644},
		ca.IdentityFile:       {sealed.Identity, 0o600},
	}
	for _, c := range []struct {
		cert, key string
		issue     func(csr []byte) ([]byte, error)
	}{
		{controllerconfig.CertFile, controllerconfig.KeyFile, func(csr []byte) ([]byte, error) { return a.IssueController(csr, cfg.SANs) }},
		{controllerconfig.RootCertFile, controllerconfig.RootKeyFile, a.IssueRoot},
	} {
		key, csr, err := ca.NewKey()
		if err != nil {
			return nil, err
		}
		cert, err := c.issue(csr)
		if err != nil {
			return nil, err
		}
		out[c.cert], out[c.key] = file{cert, 0o644}, file{key, 0o600}
	}
	if etcd != nil {
		for name, f := range map[string]file{
			controllerconfig.EtcdCAFile:   {etcd.CA, 0o644},
			controllerconfig.EtcdCertFile: {etcd.Cert, 0o644},
			controllerconfig.EtcdKeyFile:  {etcd.Key, 0o600},
		} {
			if len(f.data) > 0 {
				out[name] = f
			}
		}
	}
	return out, nil
}

// controllerSpec is the controller's container.
func controllerSpec(cfg controllerconfig.Config, image, reference string) client.ContainerCreateOptions {
	host := &container.HostConfig{
		NetworkMode: "host", UsernsMode: "host", ReadonlyRootfs: true,
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyAlways},
		CapDrop:       []string{"ALL"}, SecurityOpt: []string{"label=disable", "no-new-privileges"},
		Mounts: []mount.Mount{
			{Type: mount.TypeVolume, Source: DataVolume, Target: controllerconfig.DataDir},
			{Type: mount.TypeVolume, Source: ConfigVolume, Target: controllerconfig.ConfigDir},
		},
		LogConfig: ownLog(),
	}
	if cfg.APIPort < 1024 {
		host.CapAdd = []string{"NET_BIND_SERVICE"}
	}
	stop := 10
	c := &container.Config{
		// By name, so that `docker ps` says it; the hash has the id.
		Image: reference, Entrypoint: []string{"/docker-clocker"},
		Cmd: []string{
			"serve", "--fleet", cfg.Fleet, "--data", controllerconfig.DataDir, "--config", controllerconfig.ConfigDir,
			"--listen", ":" + strconv.Itoa(cfg.APIPort), "--advertise", cfg.Advertise,
		},
		Labels:      map[string]string{LabelFleet: cfg.Fleet, LabelSystem: SystemController},
		StopTimeout: &stop,
	}
	c.Labels[labelHash] = specHash(image, c, host)
	return client.ContainerCreateOptions{Name: ControllerContainer, Config: c, HostConfig: host}
}

// labelHash tells whether a container of ours is still what would be made.
const labelHash = record.LabelHash

func specHash(image string, parts ...any) string {
	h := sha256.New()
	_ = json.NewEncoder(h).Encode(append([]any{image}, parts...)) // plain structs always encode
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// ownLog bounds what our containers write, whatever the engine's default is.
func ownLog() container.LogConfig {
	return container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "10m", "max-file": "3"}}
}

func (i *initiation) createContainer(ctx context.Context, cfg controllerconfig.Config) error {
	if _, err := i.e.ContainerCreate(ctx, controllerSpec(cfg, i.machine.image, i.o.Kit.Image.Reference())); err != nil {
		return fmt.Errorf("create container %s: %w", ControllerContainer, err)
	}
	return nil
}

func (i *initiation) startContainer(ctx context.Context) error {
	if _, err := i.e.ContainerStart(ctx, ControllerContainer, client.ContainerStartOptions{}); err != nil {
		return fmt.Errorf("start container %s: %w", ControllerContainer, err)
	}
	return nil
}

// start brings the container of a complete controller up: kept when it is as
// it would be made, made anew otherwise. The volumes stay.
func (i *initiation) start(ctx context.Context, f found, cfg controllerconfig.Config) error {
	want := controllerSpec(cfg, i.machine.image, i.o.Kit.Image.Reference())
	if f.container != nil && label(f.container, labelHash) == want.Config.Labels[labelHash] {
		if f.running {
			i.say(StepController, Kept, "controller runs")
			return nil
		}
		i.say(StepController, Done, "controller started")
		return i.startContainer(ctx)
	}
	what := "made anew: its container was gone"
	if f.container != nil {
		what = "upgraded"
		if err := stopContainer(ctx, i.e, ControllerContainer, 10); err != nil {
			return err
		}
		if _, err := removeContainer(ctx, i.e, ControllerContainer); err != nil {
			return err
		}
	}
	if err := i.createContainer(ctx, cfg); err != nil {
		return err
	}
	i.say(StepController, Done, "controller %s", what)
	return i.startContainer(ctx)
}

// readVolumes reads configuration and authority back; what is not complete
// stays nil.
func (i *initiation) readVolumes(ctx context.Context, f *found) error {
	id := ControllerContainer
	if f.container == nil {
		p := probe{image: i.machine.image, args: []string{"version"}, mounts: controllerSpec(controllerconfig.Config{}, "", "").HostConfig.Mounts}
		var err error
		if id, err = p.create(ctx, i.e); err != nil {
			return err
		}
		defer discard(ctx, i.e, id)
	}
	var s ca.Sealed
	var text []byte
	for _, part := range []struct {
		name string
		data *[]byte
	}{
		{controllerconfig.ConfigDir + "/" + controllerconfig.File, &text},
		{controllerconfig.ConfigDir + "/" + ca.CertificateFile, &s.Certificate},
		{controllerconfig.ConfigDir + "/" + ca.IdentityFile, &s.Identity},
		{controllerconfig.DataDir + "/" + ca.SealedKeyFile, &s.Key},
	} {
		b, err := get(ctx, i.e, id, part.name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		*part.data = b
	}
	cfg, err := controllerconfig.Parse(text)
	if err != nil {
		return err
	}
	f.config, f.sealed = cfg, &s
	return nil
}

// sameCA reports whether two bundles are of one fleet: they have an authority in
// common, which a fleet's have at each step of changing it.
func sameCA(a, b []byte) bool { return shareCA(a, b) }

// removeController takes a controller's container and volumes away, and with
// them the fleet's state.
func removeController(ctx context.Context, e *client.Client) error {
	if _, err := removeContainer(ctx, e, ControllerContainer); err != nil {
		return err
	}
	for _, name := range []string{DataVolume, ConfigVolume} {
		if _, err := e.VolumeRemove(ctx, name, client.VolumeRemoveOptions{Force: true}); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove volume %s: %w", name, err)
		}
	}
	return nil
}
