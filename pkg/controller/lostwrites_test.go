package controller

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/store/storetest"

	clientv3 "go.etcd.io/etcd/client/v3"
	"gotest.tools/v3/assert"
)

var errLost = errors.New("connection lost")

// lossyKV loses one of the transactions that are about an application: its
// request, so that nothing is written, or its answer.
type lossyKV struct {
	clientv3.KV
	mu     sync.Mutex // guards the following fields
	seen   int
	lose   int // the number of the lost one, from 1
	answer bool
}

func (l *lossyKV) Txn(ctx context.Context) clientv3.Txn {
	return &lossyTxn{Txn: l.KV.Txn(ctx), kv: l}
}

// lost counts a transaction and says whether it is the one to be lost.
func (l *lossyKV) lost() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen++
	return l.seen == l.lose
}

// begin starts counting anew.
func (l *lossyKV) begin(lose int, answer bool) (seen int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen, l.seen, l.lose, l.answer = l.seen, 0, lose, answer
	return seen
}

type lossyTxn struct {
	clientv3.Txn
	kv    *lossyKV
	about bool
}

func (t *lossyTxn) If(cs ...clientv3.Cmp) clientv3.Txn { t.Txn.If(cs...); return t }

func (t *lossyTxn) Then(ops ...clientv3.Op) clientv3.Txn {
	for _, o := range ops {
		for _, about := range []string{"/apps/", "/assign/", "/net/networks/"} {
			t.about = t.about || strings.Contains(string(o.KeyBytes()), about)
		}
	}
	t.Txn.Then(ops...)
	return t
}

func (t *lossyTxn) Commit() (*clientv3.TxnResponse, error) {
	if !t.about || !t.kv.lost() {
		return t.Txn.Commit()
	}
	if t.kv.answer {
		if _, err := t.Txn.Commit(); err != nil {
			return nil, err
		}
	}
	return nil, errLost
}

// A deploy of which one write is lost, or done and its answer lost, either
// ends well or leaves nothing, and the next one succeeds at once.
func TestDeployOfWhichAnyOneWriteIsLost(t *testing.T) {
	client := storetest.Start(t)
	lossy, err := clientv3.New(clientv3.Config{Endpoints: client.Endpoints()})
	assert.NilError(t, err)
	defer lossy.Close() //nolint:errcheck // the test is over
	kv := &lossyKV{KV: lossy.KV}
	lossy.KV = kv
	c, stop := newController(t, lossy, "c1")
	defer stop()
	playAgents(t, client, "h1", "h2")
	c.awaitLead(t)
	remove := func(t *testing.T) {
		t.Helper()
		assert.NilError(t, c.Remove(t.Context(), "app", func(api.Progress) error { return nil }))
		assert.DeepEqual(t, left(t, c.store), []string(nil))
	}
	kv.begin(0, false)
	done, problems, err := deploy(c, application("app", 2, 2))
	assert.NilError(t, err)
	assert.Equal(t, done, "ok", problems)
	writes := kv.begin(0, false)
	assert.Assert(t, writes >= 4, writes)
	remove(t)
	failed := 0
	for lose := 1; lose <= writes; lose++ {
		for _, answer := range []bool{false, true} {
			t.Run(fmt.Sprintf("write %d, answer %t", lose, answer), func(t *testing.T) {
				kv.begin(lose, answer)
				_, _, err := deploy(c, application("app", 2, 2))
				kv.begin(0, false)
				if err != nil {
					failed++
					assert.ErrorIs(t, err, errLost)
					c.awaitGone(t, "app")
				}
				done, problems, err := deploy(c, application("app", 2, 2))
				assert.NilError(t, err)
				assert.Equal(t, done, "ok", problems)
				remove(t)
			})
		}
	}
	assert.Assert(t, failed >= 6, failed)
}

// A deploy that comes the moment a controller begins to lead is not taken for
// one that its predecessor had not ended planning.
func TestDeployAtTheFirstMomentOfATerm(t *testing.T) {
	client := storetest.Start(t)
	c, stop := newController(t, client, "c0")
	playAgents(t, client, "h1", "h2")
	c.awaitLead(t)
	for i := range 10 {
		stop()
		c, stop = newController(t, client, fmt.Sprint("c", i+1))
		for leads := false; !leads; runtime.Gosched() { // awaiting would come too late
			fence, _ := c.lead.get()
			leads = fence != nil
		}
		done, problems, err := deploy(c, application(fmt.Sprint("app", i), 1, 2))
		assert.NilError(t, err)
		assert.Equal(t, done, "ok", problems)
	}
}
