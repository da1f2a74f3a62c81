package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
)

// statusTime is how long a member of etcd may take to tell how it is.
const statusTime = 1500 * time.Millisecond

// Controllers implements [api.Backend].
func (c *Controller) Controllers(ctx context.Context) ([]api.Controller, error) {
	specs, running := c.fellows()
	_, leader := c.lead.get()
	members, err := c.members(ctx)
	if err != nil {
		return nil, err
	}
	out := []api.Controller{}
	for _, name := range slices.Sorted(maps.Keys(specs)) {
		s := specs[name]
		a := api.Controller{
			Name: s.Name, Host: s.Host, Endpoint: s.Endpoint, Address: s.Address, URL: s.URL, EtcdURL: s.EtcdURL,
			AddedAt: s.AddedAt, Version: s.Version, Status: api.ControllerDown,
		}
		if a.Host == "" {
			a.Host, a.Endpoint = c.hostAt(s.Address)
		}
		if l, up := running[name]; up {
			a.Status, a.Since, a.Schema, a.Version = api.ControllerStandby, l.Since, l.Schema, l.Version
			if s.URL == leader {
				a.Status = api.ControllerLeader
			}
		} else if s.Version == "" {
			a.Status = api.ControllerJoining
		}
		if c.etcd.kind == embedded {
			a.Etcd = members[s.MemberID]
			if a.Etcd == nil {
				a.Etcd = &api.EtcdMember{ID: s.MemberID, State: api.MemberGone}
			}
		}
		out = append(out, a)
	}
	return out, nil
}

// Controller implements [api.Backend].
func (c *Controller) Controller(ctx context.Context, name string) (api.Controller, error) {
	all, err := c.Controllers(ctx)
	if err != nil {
		return api.Controller{}, err
	}
	for _, a := range all {
		if a.Name == name {
			return a, nil
		}
	}
	return api.Controller{}, notFound("fleet %s has no controller %s", c.fleet, name)
}

func (c *Controller) fellows() (map[string]record.ControllerMember, map[string]record.ControllerLease) {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	specs := map[string]record.ControllerMember{}
	for name, it := range c.cache.controllers {
		specs[name] = it.Value
	}
	return specs, maps.Clone(c.cache.running)
}

// hostAt is the host of the fleet at an address.
func (c *Controller) hostAt(address string) (name, endpoint string) {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	for _, h := range c.cache.hosts {
		if h.Value.Address == address {
			return h.Value.Name, h.Value.Endpoint
		}
	}
	return "", ""
}

// members asks every member of the embedded etcd how it is, by id. A member
// list that is a little old is better than none: without a majority there is
// no other.
func (c *Controller) members(ctx context.Context) (map[string]*api.EtcdMember, error) {
	if c.etcd.kind != embedded {
		return nil, nil
	}
	list, err := c.etcd.client.MemberList(ctx, clientv3.WithSerializable())
	if err != nil {
		return nil, fmt.Errorf("list members of etcd: %w", err)
	}
	out := make([]*api.EtcdMember, len(list.Members))
	var g errgroup.Group
	for i, m := range list.Members {
		g.Go(func() error {
			out[i] = c.askMember(ctx, m)
			return nil
		})
	}
	g.Wait() //nolint:errcheck // none gives one
	last := uint64(0)
	for _, m := range out {
		last = max(last, m.Index)
	}
	byID := map[string]*api.EtcdMember{}
	for _, m := range out {
		if m.Healthy {
			m.Lag = last - m.Index
		}
		byID[m.ID] = m
	}
	return byID, nil
}

func (c *Controller) askMember(ctx context.Context, m *pb.Member) *api.EtcdMember {
	out := &api.EtcdMember{ID: strconv.FormatUint(m.ID, 16), State: api.MemberVoter}
	switch {
	case m.Name == "" || len(m.ClientURLs) == 0:
		out.State = api.MemberUnstarted
		return out
	case m.IsLearner:
		out.State = api.MemberLearner
	}
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	s, err := c.etcd.client.Status(ctx, m.ClientURLs[0])
	if err != nil {
		out.Error = err.Error()
		return out
	}
	out.Healthy, out.Leader = s.Leader != 0, s.Leader == m.ID
	if s.Leader == 0 {
		out.Error = "it sees no leader of etcd"
	}
	out.Term, out.Index, out.Size, out.Version = s.RaftTerm, s.RaftIndex, s.DbSize, s.Version
	return out
}

// judged are the controllers as decisions about them need them.
func (c *Controller) judged(ctx context.Context) ([]fellow, error) {
	all, err := c.Controllers(ctx)
	if err != nil {
		return nil, err
	}
	var out []fellow
	for _, a := range all {
		f := fellow{Name: a.Name, Up: a.Status == api.ControllerLeader || a.Status == api.ControllerStandby}
		if a.Etcd != nil {
			f.Voter = a.Etcd.State == api.MemberVoter
			f.Learner = a.Etcd.State == api.MemberLearner || a.Etcd.State == api.MemberUnstarted
			f.Healthy = a.Etcd.Healthy
		}
		out = append(out, f)
	}
	return out, nil
}

// AddController implements [api.Backend]: it gives a new controller its place
// in etcd, as a learner, which takes no part in any majority until it has
// caught up. Repeated, it finds the place that is there.
func (c *Controller) AddController(ctx context.Context, r api.ControllerRequest) (api.ControllerPlace, error) {
	var none api.ControllerPlace
	fence, _ := c.lead.get()
	if fence == nil {
		return none, unavailable("this controller no longer leads: try again")
	}
	if err := checkRequest(r, c.etcd.kind == embedded); err != nil {
		return none, err
	}
	specs, _ := c.fellows()
	for name, s := range specs {
		if name == r.Name && s.URL != r.URL {
			return none, conflict("the fleet has another controller %s, at %s: give --name, or remove that one first", name, s.URL)
		}
		if name != r.Name && s.URL == r.URL {
			return none, conflict("controller %s is at %s already", name, s.URL)
		}
	}
	all, err := c.judged(ctx)
	if err != nil {
		return none, err
	}
	if err := checkAddition(all, r.Name); err != nil {
		return none, conflict("add controller %s: %s", r.Name, err)
	}
	place := api.ControllerPlace{Controllers: []string{r.URL}}
	for name, s := range specs {
		if name != r.Name {
			place.Controllers = append(place.Controllers, s.URL)
		}
	}
	slices.Sort(place.Controllers)
	if c.etcd.kind == embedded {
		if err := c.addMember(ctx, r, &place); err != nil {
			return none, err
		}
	}
	key := c.store.Keys.Controller(r.Name)
	c.cache.mu.RLock()
	was := c.cache.controllers[r.Name]
	c.cache.mu.RUnlock()
	m := was.Value
	m.Name, m.Host, m.Endpoint, m.Address, m.URL = r.Name, r.Host, r.Endpoint, r.Address, r.URL
	m.EtcdURL, m.PeerURL, m.MemberID = r.EtcdURL, r.PeerURL, place.MemberID
	if was.Revision == 0 {
		m.AddedAt = c.now().UTC().Truncate(time.Second)
	}
	revision, err := c.store.Txn(fence...).Unchanged(key, was.Revision).Put(key, m).Commit(ctx)
	if errors.Is(err, store.ErrConflict) {
		return none, conflict("controller %s is being changed by somebody else: try again", r.Name)
	}
	if err != nil {
		return none, err
	}
	if was.Revision == 0 {
		c.emit(ctx, "controller", "added", r.Name, r.Address)
	}
	if w := sizeWarning(len(place.Controllers)); w != "" {
		place.Warnings = append(place.Warnings, w)
	}
	return place, c.cache.wait(ctx, revision)
}

func checkRequest(r api.ControllerRequest, member bool) error {
	var problems []string
	if !hostName.MatchString(r.Name) {
		problems = append(problems, fmt.Sprintf("name %q: use a to z, 0 to 9 and -", r.Name))
	}
	if _, err := netip.ParseAddr(r.Address); err != nil {
		problems = append(problems, fmt.Sprintf("address %q is not an IP address", r.Address))
	}
	if !strings.HasPrefix(r.URL, "https://") {
		problems = append(problems, fmt.Sprintf("URL %q does not begin with https://", r.URL))
	}
	if member && (r.PeerURL == "" || r.EtcdURL == "") {
		problems = append(problems, "the fleet embeds etcd: the new controller's URLs for it are missing")
	}
	if len(problems) > 0 {
		return invalid("controller cannot be added", problems...)
	}
	return nil
}

// addMember finds or makes the learner of a new controller.
func (c *Controller) addMember(ctx context.Context, r api.ControllerRequest, place *api.ControllerPlace) error {
	list, err := c.etcd.client.MemberList(ctx)
	if err != nil {
		return fmt.Errorf("list members of etcd: %w", err)
	}
	members := list.Members
	id := uint64(0)
	for _, m := range members {
		if slices.Contains(m.PeerURLs, r.PeerURL) {
			id = m.ID
		}
	}
	if id == 0 {
		added, err := c.etcd.client.MemberAddAsLearner(ctx, []string{r.PeerURL})
		switch {
		case errors.Is(err, rpctypes.ErrUnhealthy):
			return unavailable("etcd has just changed: try again in a few seconds")
		case errors.Is(err, rpctypes.ErrTooManyLearners):
			return conflict("add controller %s: another controller is being added at the moment", r.Name)
		case err != nil:
			return fmt.Errorf("add member to etcd: %w", err)
		}
		id, members = added.Member.ID, added.Members
	}
	var cluster []string
	for _, m := range members {
		name := m.Name
		if m.ID == id {
			name = r.Name
		}
		if name == "" {
			continue
		}
		for _, u := range m.PeerURLs {
			cluster = append(cluster, name+"="+u)
		}
	}
	place.Cluster, place.MemberID = strings.Join(cluster, ","), strconv.FormatUint(id, 16)
	return nil
}

// RemoveController implements [api.Backend]: member, record, lease, in this
// order. What an earlier attempt has done is left as it is.
func (c *Controller) RemoveController(ctx context.Context, name string, force bool) error {
	fence, _ := c.lead.get()
	if fence == nil {
		return unavailable("this controller no longer leads: try again")
	}
	c.cache.mu.RLock()
	it := c.cache.controllers[name]
	c.cache.mu.RUnlock()
	if it.Revision == 0 {
		return notFound("fleet %s has no controller %s", c.fleet, name)
	}
	all, err := c.judged(ctx)
	if err != nil {
		return err
	}
	if err := checkRemoval(all, name, force); err != nil {
		return conflict("remove controller %s: %s", name, err)
	}
	if name == c.config.Name {
		c.handOver()
		return unavailable("this controller hands its leadership over before it is removed: try again")
	}
	if c.etcd.kind == embedded {
		if err := c.removeMember(ctx, it.Value.MemberID); err != nil {
			return err
		}
	}
	k := c.store.Keys
	revision, err := c.store.Txn(fence...).Delete(k.Controller(name)).Delete(k.ControllerLease(name)).Delete(heldKey(k, name)).Commit(ctx)
	if errors.Is(err, store.ErrConflict) {
		return unavailable("this controller no longer leads: try again")
	}
	if err != nil {
		return err
	}
	c.emit(ctx, "controller", "removed", name, "")
	return c.cache.wait(ctx, revision)
}

func (c *Controller) removeMember(ctx context.Context, text string) error {
	id, err := strconv.ParseUint(text, 16, 64)
	if err != nil {
		return nil // it never had one
	}
	c.yieldRaft(ctx, id)
	_, err = c.etcd.client.MemberRemove(ctx, id)
	switch {
	case errors.Is(err, rpctypes.ErrMemberNotFound):
		return nil
	case errors.Is(err, rpctypes.ErrUnhealthy):
		return unavailable("etcd has just changed: try again in a few seconds")
	case err != nil:
		return fmt.Errorf("remove member from etcd: %w", err)
	}
	return nil
}

// yieldRaft makes this controller's member raft's leader when the one that
// goes is. It saves an election, no more: etcd holds another one otherwise.
func (c *Controller) yieldRaft(ctx context.Context, id uint64) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	list, err := c.etcd.client.MemberList(ctx)
	if err != nil {
		return
	}
	leader, conn, err := raftLeader(ctx, c.etcd.client, list.Members)
	if err != nil {
		return
	}
	defer conn.Close() //nolint:errcheck // nothing is under way
	if leader != id {
		return
	}
	if _, err := pb.NewMaintenanceClient(conn).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: c.etcd.member}); err != nil {
		c.log.Info("etcd elects another leader by itself", "error", err)
	}
}
