package agent

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
	"clocker.io/clocker/pkg/store/storetest"
)

func newReporting(t *testing.T) (*rig, *reports) {
	t.Helper()
	r := &rig{t: t, store: store.New(storetest.Start(t), "f")}
	out := newReports(identity{"f", "h1"}, r.store, slog.New(slog.DiscardHandler), time.Now)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); out.run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return r, out
}

func seen(task, state string) record.Observed {
	return record.Observed{Task: task, App: "shop", Host: "h1", State: state}
}

func (r *rig) lease() clientv3.LeaseID {
	g, err := r.store.Client().Grant(r.t.Context(), 60)
	assert.NilError(r.t, err)
	return g.ID
}

func TestReportsNeedAnAssignment(t *testing.T) {
	r, out := newReporting(t)
	out.setLease(r.lease())
	r.assign(web("t1", record.PhaseRun))
	name := &record.NameRecord{App: "shop"}
	out.report(seen("t0", record.StateRunning), name) // nobody asked for it
	out.report(seen("t1", record.StateRunning), name)
	r.state("t1", record.StateRunning)
	r.named("t1")
	r.gone(r.store.Keys.Observed("h1", "t0"))
	r.gone(r.store.Keys.Name("h1", "t0"))

	// The assignment goes: names go at once, the report when the container
	// has.
	r.unassign("t1")
	out.report(seen("t1", record.StateRunning), nil)
	r.gone(r.store.Keys.Name("h1", "t1"))
	r.state("t1", record.StateRunning)
	out.forget("t1")
	r.gone(r.store.Keys.Observed("h1", "t1"))

	// What is forgotten while it is assigned anew stays.
	r.assign(web("t2", record.PhaseRun))
	out.report(seen("t2", record.StateStopped), nil)
	r.state("t2", record.StateStopped)
	out.forget("t2")
	out.report(seen("t1", record.StateRunning), nil) // written after, and dropped
	r.assign(web("t3", record.PhaseRun))
	out.report(seen("t3", record.StateRunning), nil)
	r.state("t3", record.StateRunning)
	r.state("t2", record.StateStopped)
}

func TestReportsSurviveOthersWrites(t *testing.T) {
	r, out := newReporting(t)
	r.assign(web("t1", record.PhaseRun))
	out.report(seen("t1", record.StateCreating), nil)
	r.state("t1", record.StateCreating)
	// Somebody else deletes or changes the report: the next one counts.
	_, err := r.store.Txn().Delete(r.store.Keys.Observed("h1", "t1")).Commit(t.Context())
	assert.NilError(t, err)
	out.report(seen("t1", record.StateStarting), nil)
	r.state("t1", record.StateStarting)
	r.put(r.store.Keys.Observed("h1", "t1"), seen("t1", "nonsense"))
	out.report(seen("t1", record.StateRunning), nil)
	r.state("t1", record.StateRunning)
}

func TestManyReportsGoTogether(t *testing.T) {
	r, out := newReporting(t)
	before, err := r.store.Client().Get(t.Context(), "x")
	assert.NilError(t, err)
	const tasks = 3 * perWrite
	for i := range tasks {
		a := web(fmt.Sprintf("t%03d", i), record.PhaseRun)
		a.Container.Name = a.Task
		r.assign(a)
	}
	for i := range tasks {
		out.report(seen(fmt.Sprintf("t%03d", i), record.StateRunning), nil)
	}
	for i := range tasks {
		r.state(fmt.Sprintf("t%03d", i), record.StateRunning)
	}
	after, err := r.store.Client().Get(t.Context(), "x")
	assert.NilError(t, err)
	writes := after.Header.Revision - before.Header.Revision - tasks
	// How many wait at once depends on how fast they come.
	assert.Assert(t, writes <= tasks/4, "%d transactions for %d reports", writes, tasks)
}

func TestNamesFollowTheLease(t *testing.T) {
	r, out := newReporting(t)
	r.assign(web("t1", record.PhaseRun))
	name := &record.NameRecord{App: "shop"}
	out.report(seen("t1", record.StateRunning), name)
	r.state("t1", record.StateRunning)
	r.gone(r.store.Keys.Name("h1", "t1")) // no lease, no names
	first := r.lease()
	out.setLease(first)
	r.named("t1")
	second := r.lease()
	out.setLease(second)
	r.until("moved", func() bool {
		g, err := r.store.Client().Get(t.Context(), r.store.Keys.Name("h1", "t1"))
		assert.NilError(t, err)
		return len(g.Kvs) == 1 && g.Kvs[0].Lease == int64(second)
	})
	_, err := r.store.Client().Revoke(t.Context(), first)
	assert.NilError(t, err)
	r.named("t1")
	// A lease that etcd no longer knows holds nothing up.
	_, err = r.store.Client().Revoke(t.Context(), second)
	assert.NilError(t, err)
	lost := make(chan clientv3.LeaseID, 8)
	out.lost = func(id clientv3.LeaseID) { lost <- id }
	other := &record.NameRecord{App: "shop", Service: "changed"}
	out.report(seen("t1", record.StateStopped), other)
	r.state("t1", record.StateStopped)
	assert.Equal(t, <-lost, second)
	out.setLease(r.lease())
	assert.DeepEqual(t, r.named("t1"), *other)
}
