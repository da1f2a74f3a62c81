package agent

import (
	"context"
	"slices"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// etcdNetworks is the fleet's networks in etcd.
type etcdNetworks struct {
	identity
	store *store.Store
}

var _ fleetNetworks = etcdNetworks{}

func (e etcdNetworks) Get(ctx context.Context, id string) (record.Network, error) {
	return registry.Get(ctx, e.store, id)
}

func (e etcdNetworks) SetName(ctx context.Context, id, name string) error {
	return registry.SetName(ctx, e.store, id, name)
}

func (e etcdNetworks) Remove(ctx context.Context, id string) error {
	return registry.Delete(ctx, e.store, id)
}

func (e etcdNetworks) Busy(ctx context.Context, id string) ([]string, error) {
	items, _, err := store.List[record.Endpoint](ctx, e.store, e.store.Keys.Endpoint(id, ""))
	if err != nil {
		return nil, err
	}
	var hosts []string
	for _, it := range items {
		if h := it.Value.Host; h != e.Host && !slices.Contains(hosts, h) {
			hosts = append(hosts, h)
		}
	}
	return hosts, nil
}
