// Package histories proves that no address is held twice: engines on several
// hosts ask real plugin processes for addresses and give them back while
// processes are killed and paused, journals torn and lost, etcd stopped, and
// links cut. What the engines saw is a history, and a linearisability checker
// says whether one allocator with one memory could have answered so. An
// invariant walk over etcd and the hosts follows.
//
// It has tests only. CLOCKER_HISTORY sets how long they go on for.
//
// Design page: docs/design/addresses.md.
package histories
