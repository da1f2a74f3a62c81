// Package store is the way into etcd: the keys under /clocker/<fleet>/, the
// records kept there as versioned JSON, and typed reads, guarded writes and
// watches over them.
//
// Every write is a transaction that compares what it rests on: the revision
// it read, the absence of a key, or the fence of the leader that makes it. No
// lock is trusted without a revision in the write it guards. Nothing here
// decides anything; packages above say what to write.
//
// Design page: docs/design/state.md.
package store
