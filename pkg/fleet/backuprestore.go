package fleet

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/moby/moby/client"

	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/fleet/controllerconfig"
)

// RestoreOptions say where a fleet is brought back.
type RestoreOptions struct {
	// Dir is docker's configuration directory.
	Dir     string
	Archive *Archive
	// Engine gets the controller; Endpoint and Access are how it is reached.
	Engine   *client.Client
	Endpoint string
	Access   Access
	// Advertise is the controller's address: empty for that of the backup if
	// the machine has it, else for a chosen one. Name is empty for that of the
	// backup.
	Advertise, Name string
	// User names the user whose certificate is made when this machine has no
	// profile of the fleet; empty means "admin".
	User string
	// Force replaces a controller of the fleet that is on the engine.
	Force bool
	// ID names this restore.
	ID  string
	Kit *Kit
	Now func() time.Time
}

// Restore makes the controller of a fleet from an archive, after all of the
// fleet's controllers are lost. Hosts find it by themselves when it has the
// address of one of them; else [Rehome] tells them. What runs goes on: hosts
// keep what the restored state does not know, until a user settles that.
func Restore(ctx context.Context, o RestoreOptions, progress func(Progress)) (*Profile, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.User == "" {
		o.User = "admin"
	}
	if o.Kit == nil {
		k, err := NewKit(Build{})
		if err != nil {
			return nil, err
		}
		o.Kit = k
	}
	m := o.Archive.Manifest
	if len(m.Controller.Etcd) > 0 {
		return nil, fmt.Errorf("restore fleet %s: it used an etcd cluster of its owner's: restore that one by its own means, then docker clocker init --fleet %s --etcd", m.Fleet, m.Fleet)
	}
	r := &restoring{o: o, i: &initiation{
		o: InitOptions{
			Dir: o.Dir, Name: m.Fleet, Endpoint: o.Endpoint, Access: o.Access, Advertise: o.Advertise, User: o.User,
			Ports: Ports{API: m.Controller.APIPort, Etcd: m.Controller.EtcdPort, EtcdPeer: m.Controller.EtcdPeerPort},
			Kit:   o.Kit, Now: o.Now,
		},
		e: o.Engine, report: oneAtATime(progress),
	}}
	p, err := r.run(ctx)
	if err != nil {
		return nil, r.i.undo.run(ctx, err, r.i.report, m.Fleet)
	}
	return p, nil
}

type restoring struct {
	o RestoreOptions
	i *initiation
}

func (r *restoring) run(ctx context.Context) (*Profile, error) {
	if err := sweep(ctx, r.o.Engine, r.o.Now(), false); err != nil {
		return nil, err
	}
	f, err := r.i.find(ctx)
	if err != nil {
		return nil, err
	}
	if (f.container != nil || f.volumes) && !r.o.Force {
		return nil, fmt.Errorf("%s: %w: a controller of fleet %s is there: start it instead (docker start %s), or replace it and what it knows with --force",
			r.i.subject(), ErrInUse, r.i.o.Name, ControllerContainer)
	}
	authority, err := r.o.Archive.sealed.Open(r.o.Now)
	if err != nil {
		return nil, err
	}
	p, err := r.profile(f.profile, authority)
	if err != nil {
		return nil, err
	}
	if err := r.alone(ctx, f.profile); err != nil {
		return nil, err
	}
	if err := r.i.prepare(ctx, f); err != nil {
		return nil, err
	}
	if f.container != nil || f.volumes {
		if err := removeController(ctx, r.o.Engine); err != nil {
			return nil, err
		}
		r.i.say(StepController, Done, "the controller that was there is removed")
	}
	cfg, err := r.config(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.install(ctx, authority, cfg); err != nil {
		return nil, err
	}
	p.Controllers = []string{controllerURL(cfg)}
	if err := r.i.awaitNew(ctx, p); err != nil {
		return nil, err
	}
	if err := settleProfile(r.o.Dir, p, cfg.Name, r.o.Access); err != nil {
		return nil, err
	}
	return p, Use(r.o.Dir, p.Name)
}

// alone refuses to make a second fleet of one that still answers.
func (r *restoring) alone(ctx context.Context, known *Profile) error {
	if known == nil || r.o.Force {
		return nil
	}
	c, err := known.Client()
	if err != nil {
		return nil // a profile that cannot be used reaches nobody
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := c.Info(ctx); err != nil {
		return nil
	}
	return fmt.Errorf("restore fleet %s: %w: a controller of it answers at %s: a restore would make two fleets of one. Stop every controller first", r.i.o.Name, ErrInUse, c.Controllers()[0])
}

// profile is the user's: the one that is there, or a new one.
func (r *restoring) profile(known *Profile, a *ca.Authority) (*Profile, error) {
	if known != nil && sameCA(known.CA, r.o.Archive.sealed.Certificate) {
		return known, nil
	}
	if known != nil {
		return nil, fmt.Errorf("restore fleet %s: %w: this machine knows another fleet of that name: forget it first with docker clocker fleet forget %s", r.i.o.Name, ErrOtherFleet, r.i.o.Name)
	}
	p, err := r.i.makeProfile(a, r.o.Archive.Manifest.Controller)
	if err != nil {
		return nil, err
	}
	p.Making = false
	return p, nil
}

func (r *restoring) config(ctx context.Context) (controllerconfig.Config, error) {
	cfg := r.o.Archive.Manifest.Controller
	asked := r.o.Advertise
	if asked == "" {
		for _, a := range r.i.machine.facts.Addresses {
			if a.Address.Addr().String() == cfg.Advertise {
				asked = cfg.Advertise
			}
		}
	}
	address, err := ChooseAddress(ctx, asked, r.o.Endpoint, r.i.machine.facts, true, net.DefaultResolver)
	if err != nil {
		return cfg, err
	}
	if address != cfg.Advertise {
		r.i.say(StepController, Note, "the address was %s and is %s now: hosts are told next", cfg.Advertise, address)
	}
	cfg.Advertise, cfg.Endpoint, cfg.Host, cfg.Cluster = address, r.o.Endpoint, "", ""
	if r.o.Name != "" {
		cfg.Name = r.o.Name
	}
	cfg.SANs = r.i.sans(address, cfg.Name)
	return cfg, CheckName("controller", cfg.Name)
}

func (r *restoring) install(ctx context.Context, a *ca.Authority, cfg controllerconfig.Config) error {
	sealed := *r.o.Archive.sealed
	files, err := controllerFiles(a, sealed, cfg, nil)
	if err != nil {
		return err
	}
	order, err := json.Marshal(controllerconfig.Restore{ID: r.o.ID, At: r.o.Now().UTC(), Snapshot: r.o.Archive.Manifest.CreatedAt})
	if err != nil {
		return fmt.Errorf("write order: %w", err)
	}
	// The order comes after the snapshot: without it there is none.
	err = r.i.install(ctx, cfg, files, map[string]file{ca.SealedKeyFile: {sealed.Key, 0o600}},
		func(ctx context.Context) error {
			return r.o.Archive.snapshot(func(s io.Reader, size int64) error {
				return putStream(ctx, r.o.Engine, ControllerContainer, controllerconfig.DataDir, controllerconfig.SnapshotFile, s, size, r.o.Now())
			})
		},
		func(ctx context.Context) error {
			return put(ctx, r.o.Engine, ControllerContainer, controllerconfig.DataDir, map[string]file{controllerconfig.RestoreFile: {order, 0o600}}, r.o.Now())
		})
	if err != nil {
		return err
	}
	r.i.say(StepController, Done, "controller %s started with the state of %s", cfg.Name, r.o.Archive.Manifest.CreatedAt.Format(time.RFC3339))
	return nil
}

// putStream writes one large file below a directory of a container.
func putStream(ctx context.Context, e *client.Client, id, dir, name string, data io.Reader, size int64, at time.Time) error {
	r, w := io.Pipe()
	go func() {
		t := tar.NewWriter(w)
		err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: size, ModTime: at})
		if err == nil {
			_, err = io.Copy(t, data)
		}
		if err == nil {
			err = t.Close()
		}
		_ = w.CloseWithError(err) // always nil; the reader gets the error
	}()
	_, err := e.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: dir, Content: r})
	_ = r.CloseWithError(errors.New("the engine stopped reading")) // always nil; ends the writer
	if err != nil {
		return fmt.Errorf("write %s to %s: %w", name, dir, err)
	}
	return nil
}
