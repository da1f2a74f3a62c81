package driver

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"clocker.io/clocker/pkg/record"
)

// beAlive keeps a key on a lease, for other hosts to see that this one can
// answer, until ctx ends. It says nothing about who owns what.
func (d *Driver) beAlive(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.ctx, cancel)()
	for wait := 100 * time.Millisecond; ctx.Err() == nil; wait = min(2*wait, 5*time.Second) {
		lease, err := d.announce(ctx)
		if err == nil {
			wait = 100 * time.Millisecond
			d.keepAlive(ctx, lease)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

func (d *Driver) announce(ctx context.Context) (clientv3.LeaseID, error) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
	defer cancel()
	lease, err := d.st.Client().Grant(ctx, max(1, int64(d.cfg.Alive/time.Second)))
	if err != nil {
		return 0, err
	}
	_, err = d.st.Txn().Put(d.st.Keys.Live(d.cfg.Host), record.Live{Host: d.cfg.Host, Epoch: d.epoch}, clientv3.WithLease(lease.ID)).Commit(ctx)
	return lease.ID, err
}

// keepAlive returns when the lease is lost. At the end of ctx it gives the
// lease back: who stops in order is gone at once.
func (d *Driver) keepAlive(ctx context.Context, lease clientv3.LeaseID) {
	answers, err := d.st.Client().KeepAlive(ctx, lease)
	if err != nil {
		return
	}
	for range answers {
	}
	if ctx.Err() == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), d.cfg.Timeout)
	defer cancel()
	if _, err := d.st.Client().Revoke(ctx, lease); err != nil {
		d.log.Debug("give lease back", "error", err)
	}
}
