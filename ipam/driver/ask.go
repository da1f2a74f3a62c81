package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// ask asks the owner of a block for one address of it, and returns the
// revision of the pin that it answered with. It returns [store.ErrConflict]
// when block or pin have changed meanwhile. After any other error but that of
// an absent etcd, the address is certainly not ours.
func (d *Driver) ask(ctx context.Context, n *network, a netip.Addr, name string, at around) (int64, error) {
	owner := at.block.Host
	where := fmt.Sprintf("address %s is in a block whose addresses only host %s hands out", a, owner)
	if _, err := store.Get[record.Live](ctx, d.st, d.st.Keys.Live(owner)); errors.Is(err, store.ErrNotFound) {
		return 0, fmt.Errorf("%s, and its network plugin is not connected: start that host, take another address, or remove it (docker clocker host rm %s)", where, owner)
	} else if err != nil {
		return 0, err
	}
	key := d.st.Keys.Ask(owner, registry.NewID())
	rev, err := d.st.Txn().Unchanged(at.key, at.blockRevision).Absent(d.st.Keys.Pin(n.id, a.String())).
		Put(key, record.Ask{From: d.cfg.Host, Owner: owner, Network: n.id, Address: a.String(), Container: name, Epoch: d.epoch}).Commit(ctx)
	if err != nil {
		return 0, err
	}
	refused, answered := d.answered(ctx, key, rev)
	if !answered {
		// Time is short, but a moment is needed to know how it ended.
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.cfg.Timeout)
		defer cancel()
		if _, err := d.st.Txn().Unchanged(key, rev).Delete(key).Commit(late); err == nil {
			return 0, fmt.Errorf("%s, and that host has not answered: take another address, or look at it", where)
		} else if !errors.Is(err, store.ErrConflict) {
			return 0, err
		}
		// It answered at the last moment.
		it, err := store.Get[record.Ask](late, d.st, key)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return 0, err
		}
		refused, ctx = it.Value.Refused, late
	}
	if refused != "" {
		if _, err := d.st.Txn().Delete(key).Commit(ctx); err != nil {
			d.log.Debug("delete answered question", "error", err)
		}
		return 0, fmt.Errorf("%s: %s", where, refused)
	}
	it, err := store.Get[record.Pin](ctx, d.st, d.st.Keys.Pin(n.id, a.String()))
	if errors.Is(err, store.ErrNotFound) || err == nil && (it.Value.Host != d.cfg.Host || it.Value.Epoch != d.epoch) {
		return 0, store.ErrConflict // The question was withdrawn with its host.
	}
	return it.Revision, err
}

// answered waits until a question is answered: its key goes when the address
// was granted, and says why when it was refused. It reports false when there
// was no answer in the time that a host has for one, or ctx ended.
func (d *Driver) answered(ctx context.Context, key string, rev int64) (refused string, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Answer)
	defer cancel()
	for r := range d.st.Client().Watch(clientv3.WithRequireLeader(ctx), key, clientv3.WithRev(rev+1)) {
		for _, e := range r.Events {
			if e.Type == clientv3.EventTypeDelete {
				return "", true
			}
			if ask, err := store.Decode[record.Ask](store.Raw{Value: e.Kv.Value}); err == nil && ask.Refused != "" {
				return ask.Refused, true
			}
		}
	}
	return "", false
}

// withdrawAsks takes back what this host asked for and does not want any
// more: afterwards its pin is there or will never be.
func (d *Driver) withdrawAsks(ctx context.Context, n *network, a netip.Addr) error {
	asks, _, err := store.List[record.Ask](ctx, d.st, d.st.Keys.Asks())
	if err != nil {
		return err
	}
	for _, it := range asks {
		if it.Value.From != d.cfg.Host || it.Value.Network != n.id || it.Value.Address != a.String() {
			continue
		}
		if _, err := d.st.Txn().Delete(it.Key).Commit(ctx); err != nil {
			return err
		}
	}
	return nil
}

// forgetAsks takes back what an earlier run of this host asked for.
func (d *Driver) forgetAsks(ctx context.Context) error {
	asks, _, err := store.List[record.Ask](ctx, d.st, d.st.Keys.Asks())
	if err != nil {
		return err
	}
	for _, it := range asks {
		d.mu.Lock()
		n := d.find(it.Value.Network)
		a, _ := netip.ParseAddr(it.Value.Address)
		busy := n != nil && n.busy[a] != nil
		d.mu.Unlock()
		if it.Value.From != d.cfg.Host || busy {
			continue
		}
		if _, err := d.st.Txn().Unchanged(it.Key, it.Revision).Delete(it.Key).Commit(ctx); err != nil && !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
	return nil
}

// answerAsks answers what other hosts ask this one for.
func (d *Driver) answerAsks(ctx context.Context) error {
	d.mu.Lock()
	due := d.asked
	d.asked = false
	d.mu.Unlock()
	if !due {
		return nil
	}
	err := d.answerAll(ctx)
	if err != nil {
		d.mu.Lock()
		d.asked = true
		d.mu.Unlock()
	}
	return err
}

func (d *Driver) answerAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
	defer cancel()
	asks, _, err := store.List[record.Ask](ctx, d.st, d.st.Keys.Ask(d.cfg.Host, ""))
	if err != nil {
		return err
	}
	maps.DeleteFunc(d.refused, func(key string, _ time.Time) bool {
		return !slices.ContainsFunc(asks, func(it store.Item[record.Ask]) bool { return it.Key == key })
	})
	for _, it := range asks {
		if it.Value.Refused != "" {
			// Whoever asked is gone if it has not read that by now.
			since, known := d.refused[it.Key]
			if !known { // By an earlier run, or without its learning of it.
				d.refused[it.Key] = d.cfg.Now()
			}
			if !known || d.cfg.Now().Sub(since) < time.Minute {
				continue
			}
			delete(d.refused, it.Key)
			if _, err := d.st.Txn().Unchanged(it.Key, it.Revision).Delete(it.Key).Commit(ctx); err != nil && !errors.Is(err, store.ErrConflict) {
				return err
			}
			continue
		}
		if err := d.answer(ctx, it); err != nil {
			return err
		}
	}
	return nil
}

// answer answers one question. The address is lent on the disk before etcd
// says so; an answer that was lost on its way is given again.
func (d *Driver) answer(ctx context.Context, it store.Item[record.Ask]) error {
	a, err := netip.ParseAddr(it.Value.Address)
	d.mu.Lock()
	n := d.networks[it.Value.Network]
	unknown := n == nil || err != nil || n.of(a) == nil
	d.mu.Unlock()
	if unknown {
		return d.refuse(ctx, it, fmt.Sprintf("host %s does not know the network", d.cfg.Host))
	}
	unlock, err := n.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	key, revision, no := d.lendFor(n, a, it.Value)
	if errors.Is(no, errLater) {
		return nil
	} else if no != nil {
		return d.refuse(ctx, it, no.Error())
	}
	pinKey := d.st.Keys.Pin(n.id, a.String())
	_, err = d.st.Txn().Unchanged(it.Key, it.Revision).Absent(pinKey).Unchanged(key, revision).
		Put(pinKey, record.Pin{Host: it.Value.From, Container: it.Value.Container, Owner: d.cfg.Host, Epoch: it.Value.Epoch, Since: d.cfg.Now()}).
		Delete(it.Key).Commit(ctx)
	if errors.Is(err, store.ErrConflict) {
		// Answered before, withdrawn, or the block is not ours any more:
		// what etcd has now is the truth, and stays it.
		d.mu.Lock()
		delete(n.lending, a)
		n.unsure = true
		d.mu.Unlock()
		return nil
	}
	if err != nil {
		// Open: the address stays lent until etcd has the pin, or no more the
		// question.
		d.mu.Lock()
		delete(n.lending, a)
		n.open[a] = struct{}{}
		d.mu.Unlock()
		return err
	}
	d.mu.Lock()
	delete(n.lending, a)
	d.mu.Unlock()
	return nil
}

// errLater means that a question is answered when more is known.
var errLater = errors.New("to be answered later")

// lendFor lends an address for a question, on the disk, and returns the block
// that it rests on. The error says why not.
func (d *Driver) lendFor(n *network, a netip.Addr, ask record.Ask) (key string, revision int64, no error) {
	d.mu.Lock()
	f := n.of(a)
	i, err := f.grid.Index(a)
	revision, ours := f.revisions[i]
	if err != nil || !ours {
		d.mu.Unlock()
		return "", 0, fmt.Errorf("host %s does not own its block (any more)", d.cfg.Host)
	}
	key = d.st.Keys.Block(n.id, f.block(i))
	holder, held := f.share.Holder(a)
	if held && d.cfg.InUse != nil {
		d.mu.Unlock()
		if d.stillInUse(n, a, holder.Name, ask.Container) {
			return "", 0, d.inUse(a, holder.Name)
		}
		d.mu.Lock()
		if now, still := f.share.Holder(a); still && now == holder {
			if !d.doubt(n, a, holder, ask.Container) {
				d.mu.Unlock()
				return "", 0, errLater
			}
			d.append(d.release(n, a)...)
		}
	} else if held {
		d.mu.Unlock()
		return "", 0, d.inUse(a, holder.Name)
	}
	if err := f.share.Lend(a, ask.From, d.cfg.Now()); err != nil {
		d.mu.Unlock()
		return "", 0, err
	}
	n.lending[a] = struct{}{}
	delete(n.dirty, a)
	commit := d.lend(n, f, a, ask.From)
	d.mu.Unlock()
	if err := commit.Wait(); err != nil {
		d.mu.Lock()
		delete(n.lending, a)
		d.unlend(n, f, a)
		d.mu.Unlock()
		return "", 0, err
	}
	return key, revision, nil
}

func (d *Driver) refuse(ctx context.Context, it store.Item[record.Ask], why string) error {
	it.Value.Refused = why
	_, err := d.st.Txn().Unchanged(it.Key, it.Revision).Put(it.Key, it.Value).Commit(ctx)
	if errors.Is(err, store.ErrConflict) {
		return nil // Withdrawn.
	}
	if err == nil {
		d.refused[it.Key] = d.cfg.Now()
	}
	return err
}
