package location

import (
	"context"
	"fmt"
	"maps"
	"strconv"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
)

// The keys of [record.Provider.Config] of lists: how large a machine is, as
// billionths of a CPU and bytes.
const (
	ConfigCPU    = "cpu"
	ConfigMemory = "memory"
)

// list is a provider of machines that are there. Which of them are in use is
// known by their records in etcd alone, so it has nothing to make, to find
// again or to end.
type list struct{ p record.Provider }

var _ Provider = list{}

func (l list) Offers() []Offer {
	out := make([]Offer, 0, len(l.p.Machines))
	for _, m := range l.p.Machines {
		out = append(out, Offer{
			ID: m.Endpoint, Single: true, Name: m.Name, Labels: l.labels(m),
			Capacity: model.Amounts{NanoCPUs: l.figure(ConfigCPU), MemoryBytes: l.figure(ConfigMemory)},
		})
	}
	return out
}

// figure reads a number that was checked when it was written.
func (l list) figure(key string) int64 {
	n, err := strconv.ParseInt(l.p.Config[key], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// labels are the provider's, with the machine's own before them.
func (l list) labels(m record.ProviderMachine) map[string]string {
	out := maps.Clone(l.p.Labels)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, m.Labels)
	return out
}

func (l list) Create(ctx context.Context, o Order) (Machine, error) {
	m, err := l.Status(ctx, o.Offer)
	if err != nil {
		return Machine{}, &OrderError{fmt.Sprintf("provider %s lists no machine %s any more", l.p.Name, o.Offer)}
	}
	return m, nil
}

// Find finds nothing: a machine of a list is not marked, and the record of its
// use has its handle from the first.
func (l list) Find(context.Context, string) ([]Machine, error) { return nil, nil }

func (l list) Status(_ context.Context, handle string) (Machine, error) {
	for _, m := range l.p.Machines {
		if m.Endpoint == handle {
			return Machine{Handle: m.Endpoint, State: Ready, Endpoint: m.Endpoint, HostKey: m.HostKey, Labels: l.labels(m)}, nil
		}
	}
	return Machine{}, fmt.Errorf("machine %s of provider %s: %w", handle, l.p.Name, ErrGone)
}

func (l list) Release(context.Context, string) error { return nil }
