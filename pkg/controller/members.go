package controller

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
	"clocker.io/clocker/pkg/version"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// controllerTTL is how long a controller that cannot be reached counts as up.
const controllerTTL = 5

// errForgotten means that the fleet has taken this controller out.
var errForgotten = errors.New("this controller was removed from the fleet: remove its container, too (docker clocker controller rm does)")

// register keeps this controller in the list of controllers, for ever.
func (c *Controller) register(ctx context.Context) error {
	first := true
	for ctx.Err() == nil {
		err := c.present(ctx, first)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, errForgotten):
			return err
		case err != nil:
			c.log.Warn("this controller is not in the list of controllers, trying again", "error", err)
		default:
			first = false // its spec has been there: it is never made again
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

// present writes the controller's record and holds its lease until that ends.
// The record is made only at the start: one that is gone later was removed.
func (c *Controller) present(ctx context.Context, first bool) error {
	if err := c.writeSpec(ctx, first); err != nil {
		return err
	}
	lease, err := c.etcd.client.Grant(ctx, controllerTTL)
	if err != nil {
		return fmt.Errorf("grant lease: %w", err)
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		c.etcd.client.Revoke(end, lease.ID) //nolint:errcheck // it expires by itself otherwise
	}()
	k := c.store.Keys
	_, err = c.store.Txn().Exists(k.Controller(c.config.Name)).Put(k.ControllerLease(c.config.Name), record.ControllerLease{
		Boot: c.boot, Version: version.Version, Schema: record.SchemaVersion, Since: c.began,
	}, clientv3.WithLease(lease.ID)).Commit(ctx)
	if errors.Is(err, store.ErrConflict) {
		return errForgotten
	}
	if err != nil {
		return err
	}
	alive, err := c.etcd.client.KeepAlive(ctx, lease.ID)
	if err != nil {
		return fmt.Errorf("keep lease: %w", err)
	}
	for range alive {
	}
	return nil
}

// writeSpec brings this controller's record up to date.
func (c *Controller) writeSpec(ctx context.Context, make bool) error {
	key := c.store.Keys.Controller(c.config.Name)
	it, err := store.Get[record.ControllerMember](ctx, c.store, key)
	switch {
	case errors.Is(err, store.ErrNotFound) && !make:
		return errForgotten
	case err != nil && !errors.Is(err, store.ErrNotFound):
		return err
	}
	want := c.spec(it.Value)
	if it.Revision > 0 && it.Value == want {
		return nil
	}
	_, err = c.store.Txn().Unchanged(key, it.Revision).Put(key, want).Commit(ctx)
	return err
}

// spec is this controller's record; was is the one that is there.
func (c *Controller) spec(was record.ControllerMember) record.ControllerMember {
	m := record.ControllerMember{
		Name: c.config.Name, Host: c.config.Host, Endpoint: c.config.Endpoint, Address: c.config.Advertise,
		URL: c.url, Version: version.Version, AddedAt: was.AddedAt,
	}
	if m.Host == "" {
		m.Host, m.Endpoint = was.Host, was.Endpoint
	}
	if m.AddedAt.IsZero() {
		m.AddedAt = c.now().UTC().Truncate(time.Second)
	}
	if c.etcd.kind == embedded {
		peer := etcdURL(c.config.Advertise, c.config.EtcdPeerPort)
		m.EtcdURL, m.PeerURL = c.etcd.urls[0], peer.String()
		m.MemberID = strconv.FormatUint(c.etcd.member, 16)
	}
	return m
}

// membersPause is how often the leader looks at the fleet's controllers.
const membersPause = time.Second

// keepControllers lets members of etcd vote that have caught up, tells of
// controllers that come and go, and raises the layout's number once all of
// them know it, while this controller leads.
func (c *Controller) keepControllers(ctx context.Context) {
	up := c.controllersUp()
	t := time.NewTicker(membersPause)
	defer t.Stop()
	for {
		if c.etcd.kind == embedded {
			c.promote(ctx)
		}
		now := c.controllersUp()
		for name := range up {
			if !now[name] {
				c.emit(ctx, "controller", "down", name, "")
			}
		}
		for name := range now {
			if !up[name] {
				c.emit(ctx, "controller", "up", name, "")
			}
		}
		up = now
		if err := c.raiseSchema(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("layout of the state is not raised", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (c *Controller) controllersUp() map[string]bool {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	out := map[string]bool{}
	for name := range c.cache.running {
		out[name] = true
	}
	return out
}

// promote lets learners vote that have caught up.
func (c *Controller) promote(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := c.etcd.client.MemberList(ctx)
	if err != nil {
		return
	}
	for _, m := range r.Members {
		if !m.IsLearner || m.Name == "" { // without a name it has not started
			continue
		}
		err := promoteMember(ctx, c.etcd.client, r.Members, m.ID)
		switch {
		case err == nil:
			c.log.Info("etcd member votes now", "member", m.Name)
			c.emit(ctx, "controller", "joined", m.Name, "its member of etcd has caught up and votes")
		case !errors.Is(err, rpctypes.ErrMemberLearnerNotReady):
			c.log.Warn("etcd member cannot vote yet", "member", m.Name, "error", err)
		}
	}
}

// promoteMember asks raft's leader, which alone knows how far a learner is. Any
// other member would pass the request on without the caller's certificate, and
// the leader refuse it (etcd 3.7, etcdserver/server.go, PromoteMember).
func promoteMember(ctx context.Context, c *clientv3.Client, members []*pb.Member, id uint64) error {
	_, conn, err := raftLeader(ctx, c, members)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is under way
	_, err = pb.NewClusterClient(conn).MemberPromote(ctx, &pb.MemberPromoteRequest{ID: id})
	return rpctypes.Error(err)
}

// errNoRaftLeader means that etcd has no leader that takes calls at the moment.
var errNoRaftLeader = errors.New("etcd has no leader at the moment")

// raftLeader connects the member that leads raft, as a client's own member sees
// it; the caller closes the connection.
func raftLeader(ctx context.Context, c *clientv3.Client, members []*pb.Member) (id uint64, conn *grpc.ClientConn, err error) {
	local, err := c.Status(ctx, c.Endpoints()[0])
	if err != nil {
		return 0, nil, fmt.Errorf("find the leader of etcd: %w", err)
	}
	for _, m := range members {
		if m.ID != local.Leader || len(m.ClientURLs) == 0 {
			continue
		}
		conn, err := c.Dial(m.ClientURLs[0])
		if err != nil {
			return 0, nil, fmt.Errorf("connect the leader of etcd: %w", err)
		}
		return m.ID, conn, nil
	}
	return 0, nil, errNoRaftLeader
}
