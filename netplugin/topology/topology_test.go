package topology

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
	"clocker.io/clocker/pkg/store/storetest"
)

func TestParse(t *testing.T) {
	k := store.NewKeys("f")
	for key, want := range map[string]Kind{
		k.Pool("default"): Pool, k.Network("n"): Network, k.Block("n", "10.0.0.0/26"): Block,
		k.Endpoint("n", "10.0.0.5"): Endpoint, k.Underlay("h"): Underlay,
		k.Name("h", "t"): Name, k.Pin("n", "10.0.0.5"): Pin, k.Service("n", "fd00::5"): Service, k.Attached("n", "h"): Attached,
		k.Published("tcp", 80): Published, k.Rule("r"): Rule, k.Ask("h", "i"): Other,
		k.NetworkGuard(): Other, k.NetworkUse("n", "h"): Other, k.Schema(): Other,
		k.Networks() + "a/b": Other, k.Blocks() + "n": Other, k.Endpoints() + "n/a/b": Other, "": Other,
	} {
		got, _, _ := parse(k, key)
		assert.Equal(t, got, want, key)
	}
}

func TestPutAndDelete(t *testing.T) {
	k, top := store.NewKeys("f"), New()
	put := func(key, value string) error {
		_, err := top.Put(k, store.Raw{Key: key, Value: []byte(value)})
		return err
	}
	assert.NilError(t, put(k.Network("n"), `{"id":"n","subnet":"10.208.0.0/20"}`))
	assert.NilError(t, put(k.Pool("p"), `{"name":"p","cidr":"10.208.0.0/12"}`))
	assert.NilError(t, put(k.Block("n", "10.208.0.0/26"), `{"host":"h"}`))
	assert.NilError(t, put(k.Endpoint("n", "10.208.0.5"), `{"host":"h"}`))
	assert.NilError(t, put(k.Underlay("h"), `{"host":"h","mtu":1400}`))
	assert.Equal(t, top.Blocks["n"][netip.MustParsePrefix("10.208.0.0/26")].Host, "h")
	assert.Equal(t, top.Endpoints["n"][netip.MustParseAddr("10.208.0.5")].Host, "h")
	assert.Equal(t, len(top.Prefixes()), 2)

	for key, value := range map[string]string{
		k.Network("x"): "not JSON", k.Block("n", "nonsense"): `{}`, k.Endpoint("n", "nonsense"): `{}`,
	} {
		assert.Check(t, put(key, value) != nil, key)
	}
	for _, key := range []string{
		k.Network("n"), k.Pool("p"), k.Block("n", "10.208.0.0/26"), k.Endpoint("n", "10.208.0.5"), k.Underlay("h"), k.Network("never there"),
	} {
		top.Delete(k, key)
	}
	assert.DeepEqual(t, top, New())
}

// A view follows etcd, and starts from what an earlier one wrote down.
func TestView(t *testing.T) {
	server := storetest.StartServer(t)
	st, dir := store.New(server.Client(), "f"), t.TempDir()
	log := slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(t.Context())
	v, err := NewView(st, dir, log)
	assert.NilError(t, err)
	v.Read(func(_ *Topology, k Knowledge) { assert.Equal(t, k, Unknown) })
	done := make(chan error, 1)
	changed, observed := v.Changes(ctx), make(chan store.Change, 100)
	go func() { done <- v.Run(ctx, func(c store.Change) { observed <- c }) }()

	key := st.Keys.Network("n")
	_, err = st.Txn().Put(key, record.Network{ID: "n", Subnet: "10.208.0.0/20"}).Commit(ctx)
	assert.NilError(t, err)
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		var n record.Network
		v.Read(func(t *Topology, _ Knowledge) { n = t.Networks["n"] })
		if n.ID == "n" {
			return poll.Success()
		}
		return poll.Continue("network not seen")
	}, poll.WithDelay(10*time.Millisecond))
	<-changed
	<-observed
	n, err := v.Network(ctx, "n")
	assert.NilError(t, err)
	assert.Equal(t, n.Subnet, "10.208.0.0/20")
	_, err = v.Network(ctx, "none")
	assert.ErrorIs(t, err, store.ErrNotFound)

	var again *View
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		again, err = NewView(st, dir, log)
		if err == nil && len(again.now.Networks) == 1 {
			return poll.Success()
		}
		return poll.Continue("not written down: %v", err)
	}, poll.WithDelay(20*time.Millisecond))
	again.Read(func(_ *Topology, k Knowledge) { assert.Equal(t, k, Remembered) })
	cancel()
	assert.ErrorIs(t, <-done, context.Canceled)
}
