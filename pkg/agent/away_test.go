package agent

import (
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/hostconfig"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
	"clocker.io/clocker/pkg/store/storetest"
)

func TestHostGoesOnWithoutEtcd(t *testing.T) {
	srv := storetest.StartServer(t)
	client, err := (&hostconfig.Config{Etcd: []string{srv.URL()}}).EtcdClient()
	assert.NilError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	r := &rig{t: t, store: store.New(client, "f"), engine: newMemEngine(), dir: t.TempDir(), stop: func() {}}
	t.Cleanup(func() { r.stop() })
	r.put(r.store.Keys.HostSpec("h1"), record.Host{ID: "h1"})
	r.network("n1", "shop")
	r.start()
	a := web("t1", record.PhaseRun)
	a.Container.Networks = []record.NetworkJoin{{ID: "n1"}}
	r.assign(a)
	was := r.state("t1", record.StateRunning)
	r.named("t1")

	// What happens while etcd is away is reported when it is back.
	srv.Stop()
	assert.NilError(t, r.engine.Remove(t.Context(), was.Container))
	r.until("made again", func() bool { return r.engine.count("start") == 2 })
	srv.Start()
	was = r.observe("t1", "the new container", func(o record.Observed) bool {
		return o.State == record.StateRunning && o.Container != was.Container
	})
	r.until("kept", func() bool {
		c, err := loadCache(r.dir, identity{"f", "h1"})
		return err == nil && c != nil && len(c.Observed) == 1 && c.Observed[0].Container == was.Container
	})

	// An agent that starts while etcd is away goes by what it kept: it
	// makes what is missing and removes nothing.
	srv.Stop()
	r.stop()
	r.engine.change(func() {
		r.engine.containers[was.Container].Labels["io.clocker.task"] = "unknown"
		r.engine.containers[was.Container].Name = "unknown"
	})
	r.start()
	r.until("going on", func() bool { return r.engine.count("start") == 3 })
	assert.Equal(t, r.engine.count("remove"), 1, "only the test's own")
	srv.Start()
	r.until("cleared up", func() bool { return r.engine.count("remove") == 2 })
	r.observe("t1", "the third container", func(o record.Observed) bool {
		return o.State == record.StateRunning && o.Container != was.Container
	})
}

func TestLostLeaseIsReplaced(t *testing.T) {
	r := newRig(t)
	r.network("n1", "shop")
	r.start()
	a := web("t1", record.PhaseRun)
	a.Container.Networks = []record.NetworkJoin{{ID: "n1"}}
	r.assign(a)
	r.state("t1", record.StateRunning)
	n := r.named("t1")
	revoke := func() {
		ls, err := r.store.Client().Get(t.Context(), r.store.Keys.HostLease("h1"))
		assert.NilError(t, err)
		assert.Equal(t, len(ls.Kvs), 1)
		_, err = r.store.Client().Revoke(t.Context(), clientv3.LeaseID(ls.Kvs[0].Lease))
		assert.NilError(t, err)
	}
	revoke()
	await(r, r.store.Keys.HostLease("h1"), "back", func(_ record.HostLease, ok bool) bool { return ok })
	assert.DeepEqual(t, r.named("t1"), n)
	// The host is removed: nothing of the lease comes back.
	_, err := r.store.Txn().Delete(r.store.Keys.HostSpec("h1")).Commit(t.Context())
	assert.NilError(t, err)
	revoke()
	b := web("t2", record.PhaseRun)
	b.Service = "db"
	r.assign(b)
	r.state("t2", record.StateRunning)
	r.gone(r.store.Keys.HostLease("h1"))
}

func TestReportsOfAnEarlierRunAreClearedUp(t *testing.T) {
	r := newRig(t)
	r.put(r.store.Keys.Observed("h1", "old"), record.Observed{Task: "old", App: "shop", Host: "h1", State: record.StateRunning})
	r.put(r.store.Keys.Name("h1", "old"), record.NameRecord{App: "shop"})
	r.start()
	r.gone(r.store.Keys.Observed("h1", "old"))
	r.gone(r.store.Keys.Name("h1", "old"))
}
