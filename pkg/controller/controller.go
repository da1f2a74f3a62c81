// Package controller runs a fleet's control plane: it embeds etcd or uses one
// that is there, takes part in the election of a leader, serves the API, and,
// while it leads, carries out what pkg/plan and pkg/placement decide by
// writing assignments that agents pull. It never talks to an engine.
//
// Any number of controllers may stand by; reads are served by each, what
// changes state is passed on to the leader. Every write of the leader carries
// a fence: the revision of its election, so a leader that was deposed without
// noticing changes nothing.
//
// Design page: docs/design/deploy.md.
package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/dnsupdate"
	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/fleet/controllerconfig"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
	"clocker.io/clocker/pkg/tunnel"

	"golang.org/x/sync/errgroup"
)

// Options are what `docker-clocker serve` was started with. Empty fields are
// taken from the configuration directory.
type Options struct {
	Fleet              string
	DataDir, ConfigDir string
	// Listen is the API's address, host:port; Advertise the address by
	// which others reach this machine, without a port.
	Listen, Advertise string
	// Etcd are URLs of a cluster that is there already; empty means
	// embedded.
	Etcd                      []string
	EtcdCA, EtcdCert, EtcdKey string
	// DNSUpdate says in which DNS server's zone names are kept, in the form
	// that [dnsupdate.ParseConfig] reads; empty means in none.
	DNSUpdate string
	Log       *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Controller is one controller of a fleet.
type Controller struct {
	fleet, url string
	config     *controllerconfig.Config
	configDir  string
	dataDir    string
	etcd       etcdAccess
	authority  *ca.Authority
	// trustedAtStart is what this controller, and etcd in it, trusts since its
	// start, in the words of trustSet.
	trustedAtStart string
	store          *store.Store
	cache          *cache
	hub            *tunnel.Hub
	// calls reaches hosts; it is the hub.
	calls hostCalls
	log   *slog.Logger
	now   func() time.Time
	// zones is nil where no server's zones are kept.
	zones *dnsupdate.Updater

	// placing makes decisions that reserve something exclusive: it is held
	// from the look at the hosts until the cache has seen what was written.
	placing sync.Mutex
	// index answers where replicas fit.
	index placeIndex

	// moving is what is known of replicas on their way.
	moving moving

	lead leadership
	// resign makes this controller give up leading for a while; its reader is
	// the term.
	resign chan struct{}
	// schema is the layout that the state is kept in, as this controller knows.
	schema atomic.Int64
	// boot and began are of this run.
	boot  string
	began time.Time

	events eventLease
	audit  auditLog
	// pulse is about whether etcd answers.
	pulse pulse
	// signing is the authority that signs by now.
	signing signing
	// scale is about the number of hosts.
	scale scaling

	// exhaustedEvery and leaderGrace stand in for the constants of their names,
	// unless they are 0.
	exhaustedEvery, leaderGrace time.Duration
}

// Run runs a controller until ctx ends or something fails that a restart
// must heal.
func Run(ctx context.Context, o Options) error {
	c, stop, err := open(ctx, o)
	if err != nil {
		return err
	}
	defer stop()
	return c.run(ctx, o.Listen)
}

// open reads the configuration, starts or reaches etcd and checks the schema.
func open(ctx context.Context, o Options) (*Controller, func(), error) {
	if o.ConfigDir == "" {
		o.ConfigDir = controllerconfig.ConfigDir
	}
	if o.DataDir == "" {
		o.DataDir = controllerconfig.DataDir
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	cfg, err := controllerconfig.Load(o.ConfigDir)
	if err != nil {
		return nil, nil, err
	}
	if o.Fleet != "" && o.Fleet != cfg.Fleet {
		return nil, nil, fmt.Errorf("start controller: its configuration is of fleet %s, not %s", cfg.Fleet, o.Fleet)
	}
	if o.Advertise != "" {
		cfg.Advertise = o.Advertise
	}
	if len(o.Etcd) > 0 {
		cfg.Etcd = o.Etcd
	}
	var zones *dnsupdate.Updater
	if o.DNSUpdate != "" {
		zone, err := dnsupdate.ParseConfig(o.DNSUpdate)
		if err != nil {
			return nil, nil, err
		}
		zones = &dnsupdate.Updater{Config: zone, Fleet: cfg.Fleet, Log: o.Log.With("component", "dns-update"), Now: o.Now}
	}
	authority, err := ca.Load(o.ConfigDir, o.DataDir, o.Now)
	if err != nil {
		return nil, nil, err
	}
	access, stop, err := startEtcd(ctx, cfg, o)
	if err != nil {
		return nil, nil, err
	}
	c := &Controller{
		fleet:     cfg.Fleet,
		url:       "https://" + net.JoinHostPort(cfg.Advertise, strconv.Itoa(cfg.APIPort)),
		config:    cfg,
		configDir: o.ConfigDir,
		dataDir:   o.DataDir,
		etcd:      access,
		authority: authority,
		store:     store.New(access.client, cfg.Fleet),
		hub:       tunnel.NewHub(o.Log),
		log:       o.Log,
		now:       o.Now,
		zones:     zones,
		resign:    make(chan struct{}, 1),
		boot:      newID(),
		began:     o.Now().UTC(),
	}
	if c.trustedAtStart, err = trustSet(authority.Bundle()); err != nil {
		stop()
		return nil, nil, err
	}
	c.cache, c.calls = newCache(c.fleet), c.hub
	if err := c.bootstrap(ctx); err != nil {
		stop()
		return nil, nil, err
	}
	return c, stop, nil
}

// bootstrap makes what a new fleet's etcd must hold, and refuses a fleet that
// a newer program has written.
func (c *Controller) bootstrap(ctx context.Context) error {
	it, err := store.Get[schema](ctx, c.store, c.store.Keys.Schema())
	if errors.Is(err, store.ErrNotFound) {
		it.Value.Version = record.SchemaVersion
	}
	switch {
	case errors.Is(err, store.ErrNotFound):
		_, err := c.store.Txn().Absent(it.Key).Put(it.Key, schema{record.SchemaVersion}).Commit(ctx)
		if err != nil && !errors.Is(err, store.ErrConflict) {
			return err
		}
	case err != nil:
		return err
	default:
		if err := checkSchema(c.fleet, it.Value.Version); err != nil {
			return err
		}
	}
	c.schema.Store(int64(max(it.Value.Version, 1)))
	return registry.EnsureDefaults(ctx, c.store)
}

type schema struct {
	Version int `json:"version"`
}

func (c *Controller) run(ctx context.Context, listen string) error {
	if listen == "" {
		listen = ":" + strconv.Itoa(c.config.APIPort)
	}
	serverTLS, err := controllerconfig.ServerTLS(c.configDir)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("listen for the API: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	srv := &http.Server{
		Handler:           api.NewHandler(c, c.hub, c.log.With("component", "api")),
		TLSConfig:         serverTLS,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(c.log.Handler(), slog.LevelDebug),
	}
	g.Go(func() error { return ignoreEnd(ctx, c.store.Follow(ctx, c.store.Keys.Prefix(), c.log, c.cache.apply)) })
	g.Go(func() error { return c.register(ctx) })
	g.Go(func() error { return c.elect(ctx) })
	g.Go(func() error { return c.keepAuthority(ctx) })
	g.Go(func() error {
		select {
		case <-c.etcd.ended: // nil, so for ever, unless etcd is embedded
			return errMemberEnded
		case <-ctx.Done():
			return nil
		}
	})
	g.Go(func() error {
		err := srv.ServeTLS(l, "", "")
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return err
	})
	g.Go(func() error {
		<-ctx.Done()
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if srv.Shutdown(stopCtx) != nil {
			return srv.Close()
		}
		return nil
	})
	c.log.Info("controller is up", "fleet", c.fleet, "url", c.url, "etcd", c.etcd.kind)
	return g.Wait()
}

// ignoreEnd drops the error that only says that ctx has ended.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
