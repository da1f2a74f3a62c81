package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// Use records that a host's engine has a Docker network on a network; made
// says that it was made by hand there. It returns [store.ErrNotFound] when
// the network does not exist. Doing it twice is no error.
func Use(ctx context.Context, st *store.Store, id, host string, made bool, now time.Time) error {
	key := st.Keys.NetworkUse(id, host)
	_, err := st.Txn().Exists(st.Keys.Network(id)).Absent(key).
		Put(key, record.NetworkUse{Host: host, Made: made, Since: now}).Commit(ctx)
	if errors.Is(err, store.ErrConflict) {
		if _, err = store.Get[record.NetworkUse](ctx, st, key); errors.Is(err, store.ErrNotFound) {
			_, err = Get(ctx, st, id)
		}
	}
	if err != nil {
		return fmt.Errorf("use network %s: %w", id, err)
	}
	return nil
}

// Unuse records that a host's engine has no Docker network on a network any
// more. It removes the network when it was made by hand and no host is left;
// deleted reports that. Doing it twice is no error.
func Unuse(ctx context.Context, st *store.Store, id, host string) (deleted bool, err error) {
	if _, err := st.Txn().Delete(st.Keys.NetworkUse(id, host)).Commit(ctx); err != nil {
		return false, fmt.Errorf("stop using network %s: %w", id, err)
	}
	n, err := Get(ctx, st, id)
	if errors.Is(err, store.ErrNotFound) {
		return true, nil
	}
	if err != nil || !n.ByHand {
		return false, err
	}
	_, err = remove(st, id).If(none(st.Keys.NetworkUses(id))).Commit(ctx)
	if errors.Is(err, store.ErrConflict) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("delete unused network %s: %w", id, err)
	}
	return true, nil
}

// Uses returns who uses a network.
func Uses(ctx context.Context, st *store.Store, id string) ([]record.NetworkUse, error) {
	items, _, err := store.List[record.NetworkUse](ctx, st, st.Keys.NetworkUses(id))
	if err != nil {
		return nil, err
	}
	us := make([]record.NetworkUse, len(items))
	for i, it := range items {
		us[i] = it.Value
	}
	return us, nil
}
