package testbed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Etcd is a cluster of Debian's etcd-server on the hub. Its members speak
// plain HTTP; each has ports of its own on the hub's address.
type Etcd struct {
	bed     *Testbed
	members []string
}

// etcdPort is the first member's client port; its peer port is the next, and
// the next member's are ten up.
const etcdPort = 2379

// Etcd starts a fresh cluster and waits until every member is healthy. There
// is one at a time; its data is gone after Stop.
func (t *Testbed) Etcd(ctx context.Context, members int) (*Etcd, error) {
	if members < 1 || members > 9 {
		return nil, fmt.Errorf("start etcd: %d members, not 1 to 9", members)
	}
	e := &Etcd{bed: t}
	for i := range members {
		e.members = append(e.members, fmt.Sprintf("etcd%d", i+1))
	}
	err := t.update(func(s *state) error {
		if len(s.Etcd) > 0 {
			return errors.New("one runs already")
		}
		s.Etcd = e.members
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	token := fmt.Sprintf("%s-%d", t.name, time.Now().UnixNano())
	for i, m := range e.members {
		if err = e.order("add", service{Name: m, Args: e.args(i, token)}); err != nil {
			break
		}
	}
	if err == nil {
		err = e.WaitHealthy(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("start etcd: %w", errors.Join(err, e.Stop()))
	}
	return e, nil
}

func (e *Etcd) args(i int, token string) []string {
	url := func(i, peer int) string { return fmt.Sprintf("http://%s:%d", e.bed.hub, etcdPort+10*i+peer) }
	var cluster []string
	for j, m := range e.members {
		cluster = append(cluster, m+"="+url(j, 1))
	}
	return []string{
		"etcd", "--name", e.members[i], "--data-dir", filepath.Join(hubEtcdData, e.members[i]),
		"--listen-client-urls", url(i, 0), "--advertise-client-urls", url(i, 0),
		"--listen-peer-urls", url(i, 1), "--initial-advertise-peer-urls", url(i, 1),
		"--initial-cluster", strings.Join(cluster, ","), "--initial-cluster-state", "new",
		"--initial-cluster-token", token, "--logger", "zap", "--log-level", "warn",
	}
}

// Endpoints are the members' client URLs, in order.
func (e *Etcd) Endpoints() []string {
	var all []string
	for i := range e.members {
		all = append(all, e.endpoint(i))
	}
	return all
}

func (e *Etcd) endpoint(i int) string {
	return fmt.Sprintf("http://%s:%d", e.bed.hub, etcdPort+10*i)
}

// Kill ends a member (0 is the first) as a power cut would; it stays away
// until Restart. The other members go on if they are enough.
func (e *Etcd) Kill(member int) error { return e.orderMember("end", member) }

// Restart starts a killed member with its data and waits until it is healthy.
func (e *Etcd) Restart(ctx context.Context, member int) error {
	if err := e.orderMember("start", member); err != nil {
		return err
	}
	return e.waitMember(ctx, member)
}

// Pause stops a member where it is, like a machine that hangs: it holds its
// connections and answers nothing. Resume lets it go on.
func (e *Etcd) Pause(member int) error { return e.orderMember("pause", member) }

// Resume ends a Pause.
func (e *Etcd) Resume(member int) error { return e.orderMember("resume", member) }

// DataDir is where a member's data is, on this machine. A test that replaces
// it (to restore an old snapshot) kills the member first.
func (e *Etcd) DataDir(member int) string {
	return filepath.Join(hubDisk(e.bed.dir), "etcd", e.members[member])
}

// Stop ends the cluster and removes its data.
func (e *Etcd) Stop() error {
	var errs []error
	for i, m := range e.members {
		err := e.order("remove", service{Name: m})
		if errors.Is(err, errDown) { // the hub is, with all of it
			err = nil
		}
		errs = append(errs, err, os.RemoveAll(e.DataDir(i)))
	}
	errs = append(errs, e.bed.update(func(s *state) error {
		s.Etcd = slices.DeleteFunc(s.Etcd, func(m string) bool { return slices.Contains(e.members, m) })
		return nil
	}))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("stop etcd: %w", err)
	}
	return nil
}

// WaitHealthy waits until every member says that it is healthy.
func (e *Etcd) WaitHealthy(ctx context.Context) error {
	for i := range e.members {
		if err := e.waitMember(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

func (e *Etcd) waitMember(ctx context.Context, i int) error {
	c := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	return poll(ctx.Done(), time.Minute, e.members[i], func() error {
		resp, err := c.Get(e.endpoint(i) + "/health")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		var body struct{ Health string }
		if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
			return err
		}
		if body.Health != "true" {
			return fmt.Errorf("health is %q", body.Health)
		}
		return nil
	})
}

func (e *Etcd) orderMember(verb string, member int) error {
	return e.order(verb, service{Name: e.members[member]})
}

func (e *Etcd) order(verb string, s service) error {
	st, err := loadState(e.bed.dir)
	if err != nil {
		return err
	}
	return sendOrder(st.Hub.Proc, verb, s)
}
