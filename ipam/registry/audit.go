package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"clocker.io/clocker/ipam/audit"
	"clocker.io/clocker/pkg/finding"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// Audit looks for contradictions in what etcd says of addresses, at one
// revision; see [audit.Check]. It mends nothing. Only who may read all hosts'
// keys (the controller) can call it.
func Audit(ctx context.Context, st *store.Store) ([]finding.Finding, error) {
	s, err := snapshot(ctx, st)
	if err != nil {
		return nil, fmt.Errorf("check addresses: %w", err)
	}
	return audit.Check(s), nil
}

func snapshot(ctx context.Context, st *store.Store) (audit.Snapshot, error) {
	var s audit.Snapshot
	k := st.Keys
	r, err := st.Client().Txn(ctx).Then(
		clientv3.OpGet(k.Net(), clientv3.WithPrefix()),
		clientv3.OpGet(k.Hosts(), clientv3.WithPrefix()),
	).Commit()
	if err != nil {
		return s, err
	}
	for _, kv := range r.Responses[0].GetResponseRange().Kvs {
		if err := take(&s, k, string(kv.Key), kv.Value); err != nil {
			return s, fmt.Errorf("read %s: %w", kv.Key, err)
		}
	}
	for _, kv := range r.Responses[1].GetResponseRange().Kvs {
		id, ok := strings.CutSuffix(strings.TrimPrefix(string(kv.Key), k.Hosts()), "/spec")
		if !ok {
			continue
		}
		var h record.Host
		if err := json.Unmarshal(kv.Value, &h); err != nil {
			return s, fmt.Errorf("read %s: %w", kv.Key, err)
		}
		if s.Hosts == nil {
			s.Hosts = map[string]string{}
		}
		s.Hosts[id] = h.Name
	}
	return s, nil
}

// take puts one record where it belongs.
func take(s *audit.Snapshot, k store.Keys, key string, value []byte) error {
	below := func(prefix string) (network, name string, ok bool) {
		rest, ok := strings.CutPrefix(key, prefix)
		if !ok {
			return "", "", false
		}
		network, name, ok = strings.Cut(rest, "/")
		return network, name, ok
	}
	switch {
	case strings.HasPrefix(key, k.Pools()):
		return into(&s.Pools, value, func(*record.Pool) {})
	case strings.HasPrefix(key, k.Networks()):
		return into(&s.Networks, value, func(*record.Network) {})
	}
	if network, _, ok := below(k.AllUses()); ok {
		return into(&s.Uses, value, func(u *audit.Use) { u.Network = network })
	}
	if network, name, ok := below(k.Blocks()); ok {
		return into(&s.Blocks, value, func(b *audit.Block) { b.Network, b.CIDR = network, strings.ReplaceAll(name, "_", "/") })
	}
	if network, name, ok := below(k.Endpoints()); ok {
		return into(&s.Endpoints, value, func(e *audit.Endpoint) { e.Network, e.Address = network, name })
	}
	if network, name, ok := below(k.Pins()); ok {
		return into(&s.Pins, value, func(p *audit.Pin) { p.Network, p.Address = network, name })
	}
	if network, name, ok := below(k.Services()); ok {
		return into(&s.Services, value, func(v *audit.Service) { v.Network, v.Address = network, name })
	}
	return nil
}

func into[T any](all *[]T, value []byte, where func(*T)) error {
	var v T
	if err := json.Unmarshal(value, &v); err != nil {
		return err
	}
	where(&v)
	*all = append(*all, v)
	return nil
}
