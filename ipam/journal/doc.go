// Package journal is an append-only log on the local disk for state that must
// survive a crash: a record is on the disk before [Commit.Wait] returns.
// Concurrent callers share one fdatasync (group commit). A tail that was torn
// by a crash is cut off when the journal is opened again; damage to records
// that had been committed is told apart from that and reported.
//
// It does not know what records mean: the caller replays them and writes the
// state they lead to when the log is compacted. Records should set, not
// change, what they speak of, so that reading one twice does no harm.
//
// Design page: docs/design/addresses.md.
package journal
