package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// ErrConflict means that what a transaction rested on has changed.
var ErrConflict = errors.New("state has changed")

// ErrNotFound means that a key does not exist.
var ErrNotFound = errors.New("not found")

// Store reads and writes one fleet's keys.
type Store struct {
	// Keys names the fleet's keys.
	Keys   Keys
	client *clientv3.Client
}

// New returns a store for the fleet over an etcd client, which the caller
// closes.
func New(c *clientv3.Client, fleet string) *Store {
	return &Store{Keys: NewKeys(fleet), client: c}
}

// Client returns the etcd client under the store.
func (s *Store) Client() *clientv3.Client { return s.client }

// Item is a record with the revisions it was read at.
type Item[T any] struct {
	Key   string
	Value T
	// Revision is the key's mod revision; 0 means that it does not exist.
	Revision int64
	Created  int64
}

// Get reads one record. It returns [ErrNotFound], with a zero Item that can
// still be used as "absent" in a guard, when there is none.
func Get[T any](ctx context.Context, s *Store, key string) (Item[T], error) {
	it := Item[T]{Key: key}
	r, err := s.client.Get(ctx, key)
	if err != nil {
		return it, fmt.Errorf("read %s: %w", key, err)
	}
	if len(r.Kvs) == 0 {
		return it, fmt.Errorf("read %s: %w", key, ErrNotFound)
	}
	kv := r.Kvs[0]
	it.Revision, it.Created = kv.ModRevision, kv.CreateRevision
	if err := json.Unmarshal(kv.Value, &it.Value); err != nil {
		return it, fmt.Errorf("read %s: %w", key, err)
	}
	return it, nil
}

// List reads every record under a prefix, in key order, and the revision at
// which all of them were read.
func List[T any](ctx context.Context, s *Store, prefix string) ([]Item[T], int64, error) {
	r, err := s.client.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortAscend))
	if err != nil {
		return nil, 0, fmt.Errorf("list %s: %w", prefix, err)
	}
	items := make([]Item[T], 0, len(r.Kvs))
	for _, kv := range r.Kvs {
		it := Item[T]{Key: string(kv.Key), Revision: kv.ModRevision, Created: kv.CreateRevision}
		if err := json.Unmarshal(kv.Value, &it.Value); err != nil {
			return nil, 0, fmt.Errorf("read %s: %w", kv.Key, err)
		}
		items = append(items, it)
	}
	return items, r.Header.Revision, nil
}

// MaxOps is how many operations one etcd transaction takes.
const MaxOps = 128

// Txn gathers a transaction: compares, then writes that happen only when all
// compares hold.
type Txn struct {
	s    *Store
	cmps []clientv3.Cmp
	ops  []clientv3.Op
	// size is the sum of the values written, in bytes.
	size int
	err  error
}

// Txn starts a transaction.
func (s *Store) Txn(guards ...clientv3.Cmp) *Txn { return &Txn{s: s, cmps: guards} }

// Unchanged guards on the revision at which a key was read; 0 means absent.
func (t *Txn) Unchanged(key string, revision int64) *Txn {
	t.cmps = append(t.cmps, clientv3.Compare(clientv3.ModRevision(key), "=", revision))
	return t
}

// Absent guards on a key that must not exist.
func (t *Txn) Absent(key string) *Txn { return t.Unchanged(key, 0) }

// Exists guards on a key that must exist.
func (t *Txn) Exists(key string) *Txn {
	t.cmps = append(t.cmps, clientv3.Compare(clientv3.ModRevision(key), ">", 0))
	return t
}

// If adds other guards.
func (t *Txn) If(cmps ...clientv3.Cmp) *Txn {
	t.cmps = append(t.cmps, cmps...)
	return t
}

// Put writes a record.
func (t *Txn) Put(key string, value any, opts ...clientv3.OpOption) *Txn {
	b, err := json.Marshal(value)
	if err != nil {
		t.err = errors.Join(t.err, fmt.Errorf("write %s: %w", key, err))
		return t
	}
	t.size += len(b)
	t.ops = append(t.ops, clientv3.OpPut(key, string(b), opts...))
	return t
}

// Delete removes a key.
func (t *Txn) Delete(key string, opts ...clientv3.OpOption) *Txn {
	t.ops = append(t.ops, clientv3.OpDelete(key, opts...))
	return t
}

// DeletePrefix removes every key under a prefix.
func (t *Txn) DeletePrefix(prefix string) *Txn {
	return t.Delete(prefix, clientv3.WithPrefix())
}

// Len is the number of writes gathered.
func (t *Txn) Len() int { return len(t.ops) }

// Full reports whether it is time to commit and begin another transaction: a
// few more writes of ordinary size still fit, so that what must go together
// can. etcd takes [MaxOps] operations and 1.5 MiB.
func (t *Txn) Full() bool { return len(t.ops) >= 100 || t.size >= 768<<10 }

// Commit carries the transaction out and returns the revision it made. It
// returns [ErrConflict] when a guard did not hold.
//
// An error other than ErrConflict leaves open whether the writes happened:
// the caller must read again before it decides anything.
func (t *Txn) Commit(ctx context.Context) (int64, error) {
	if t.err != nil {
		return 0, t.err
	}
	r, err := t.s.client.Txn(ctx).If(t.cmps...).Then(t.ops...).Commit()
	if err != nil {
		return 0, fmt.Errorf("write state: %w", err)
	}
	if !r.Succeeded {
		return 0, ErrConflict
	}
	return r.Header.Revision, nil
}
