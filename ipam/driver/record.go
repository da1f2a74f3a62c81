package driver

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"clocker.io/clocker/ipam/journal"
	"clocker.io/clocker/pkg/record"
)

// The kinds of journal records. Each sets what it speaks of, so that reading
// one twice does no harm.
const (
	opEpoch     = "epoch"     // the journal's epoch and host; always the first
	opUse       = "use"       // a network, and how many Docker networks are on it
	opForget    = "forget"    // a network is nothing to this host any more
	opBlock     = "block"     // a block is owned
	opUnblock   = "unblock"   // a block is given up; nothing of it is held
	opWithdraw  = "withdraw"  // a block is owned in name only
	opReinstate = "reinstate" // a withdrawn block is owned again
	opAlloc     = "alloc"     // an address is held
	opFree      = "free"      // an address is free; Name had it last
	opPin       = "pin"       // an address outside the host's blocks is held
	opUnpin     = "unpin"     // such an address is held no more
	opLend      = "lend"      // an address of a block is held by the host Name
	opReturn    = "return"    // such an address is free again
	opSeen      = "seen"      // how far etcd had come: Cluster and Revision
)

// entry is one entry of the journal, as JSON.
type entry struct {
	Op      string     `json:"o"`
	Network string     `json:"n,omitempty"`
	Addr    netip.Addr `json:"a,omitzero"`
	Name    string     `json:"c,omitempty"`
	// At is when it happened, in milliseconds of Unix time.
	At     int64           `json:"t,omitempty"`
	Block  int             `json:"b,omitempty"`
	Record *record.Network `json:"net,omitempty"`
	Uses   int             `json:"u,omitempty"`
	// Uses6 are those of the IPv6 half; V6 says that Block is one of it.
	Uses6 int  `json:"u6,omitempty"`
	V6    bool `json:"v6,omitempty"`
	Made  bool `json:"m,omitempty"`
	// Lent are the addresses of Block that were other hosts' when it became
	// ours, with those hosts.
	Lent map[netip.Addr]string `json:"l,omitempty"`
	// Cluster and Revision are etcd's.
	Cluster  uint64 `json:"cl,omitempty"`
	Revision int64  `json:"rev,omitempty"`
	Epoch    int64  `json:"e,omitempty"`
	Host     string `json:"h,omitempty"`
}

// errOtherHost means that the journal was written under another host id.
var errOtherHost = errors.New("journal is another host's")

func (r entry) bytes() []byte {
	if r.Op == opAlloc || r.Op == opFree {
		if b, ok := r.short(); ok {
			return b
		}
	}
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // Strings, numbers and addresses always encode.
	}
	return b
}

// short is the JSON of a record that says of one address who has it: nearly all
// records are of that kind, and it is written while everybody waits. ok is
// false where a name needs escapes.
func (r entry) short() (b []byte, ok bool) {
	for _, s := range []string{r.Network, r.Name} {
		for i := range len(s) {
			if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
				return nil, false
			}
		}
	}
	b = make([]byte, 0, 128)
	b = append(append(append(b, `{"o":"`...), r.Op...), '"')
	if r.Network != "" {
		b = append(append(append(b, `,"n":"`...), r.Network...), '"')
	}
	if r.Addr.IsValid() {
		b = append(r.Addr.AppendTo(append(b, `,"a":"`...)), '"')
	}
	if r.Name != "" {
		b = append(append(append(b, `,"c":"`...), r.Name...), '"')
	}
	if r.At != 0 {
		b = strconv.AppendInt(append(b, `,"t":`...), r.At, 10)
	}
	return append(b, '}'), true
}

// append writes records behind what was written before; mu is held, so their
// order is the order in which memory changed. A broken journal is written
// anew from memory, at most once a second.
func (d *Driver) append(rs ...entry) journal.Commit {
	if now := d.cfg.Now(); d.journal.Broken() != nil && now.Sub(d.healed).Abs() > time.Second {
		d.healed = now
		if err := d.compact(); err != nil {
			d.log.Error("mend address journal", "error", err)
		}
	}
	payloads := make([][]byte, len(rs))
	for i, r := range rs {
		payloads[i] = r.bytes()
	}
	return d.journal.Append(payloads...)
}

// compactAfter is by how many bytes the journal may grow before it is written
// anew.
const compactAfter = 4 << 20

// compactIfLong keeps the journal's length in proportion to what it says.
func (d *Driver) compactIfLong() {
	d.mu.Lock()
	defer d.mu.Unlock()
	size, grown := d.journal.Size()
	if grown < compactAfter || grown < size/2 {
		return
	}
	if err := d.compact(); err != nil {
		d.log.Error("compact address journal", "error", err)
	}
}

// compact writes the journal anew from memory; mu is held.
func (d *Driver) compact() error {
	return d.journal.Compact(func(emit func([]byte)) {
		emit(entry{Op: opEpoch, Epoch: d.epoch, Host: d.cfg.Host}.bytes())
		emit(d.seen.entry().bytes())
		for _, n := range d.networks {
			n.snapshot(func(r entry) { emit(r.bytes()) })
		}
	})
}

// replay takes one record of the journal.
func (d *Driver) replay(payload []byte) error {
	var r entry
	if err := json.Unmarshal(payload, &r); err != nil {
		return fmt.Errorf("%w: %w", journal.ErrCorrupt, err)
	}
	switch r.Op {
	case opEpoch:
		if r.Host != d.cfg.Host {
			return fmt.Errorf("%w: %s", errOtherHost, r.Host)
		}
		d.epoch = r.Epoch
		return nil
	case opSeen:
		d.seen = horizon{r.Cluster, r.Revision}
		return nil
	case opUse:
		return d.replayUse(r)
	case opForget:
		delete(d.networks, r.Network)
		return nil
	}
	n := d.networks[r.Network]
	if n == nil {
		return fmt.Errorf("%w: %s record of unknown network %s", journal.ErrCorrupt, r.Op, r.Network)
	}
	return n.replay(r)
}

func (d *Driver) replayUse(r entry) error {
	if r.Record == nil {
		return fmt.Errorf("%w: use record without a network", journal.ErrCorrupt)
	}
	n := d.networks[r.Record.ID]
	if n == nil {
		var err error
		if n, err = newNetwork(*r.Record, d.cfg.Cooldown); err != nil {
			return fmt.Errorf("%w: %w", journal.ErrCorrupt, err)
		}
		d.networks[r.Record.ID] = n
	} else if err := n.set(*r.Record); err != nil {
		return fmt.Errorf("%w: %w", journal.ErrCorrupt, err)
	}
	n.made = r.Made
	for i, uses := range []int{r.Uses, r.Uses6} {
		if f := n.families[i]; f != nil {
			f.uses = uses
		}
	}
	return nil
}

// replay takes one record about the network.
func (n *network) replay(r entry) error {
	f := n.families[index(r.V6)]
	if r.Addr.IsValid() {
		f = n.of(r.Addr)
	}
	if f == nil {
		return fmt.Errorf("%w: %s record of an address family that network %s lacks", journal.ErrCorrupt, r.Op, r.Network)
	}
	at := time.UnixMilli(r.At)
	switch r.Op {
	case opBlock:
		if r.Block < 0 || r.Block >= f.grid.Count() {
			return fmt.Errorf("%w: network %s has no block %d", journal.ErrCorrupt, r.Network, r.Block)
		}
		f.share.AddBlock(r.Block, at)
		for a, to := range r.Lent {
			f.share.RestoreLent(a, to, at)
		}
	case opUnblock:
		f.share.RemoveBlock(r.Block)
	case opWithdraw:
		f.share.Withdraw(r.Block)
	case opReinstate:
		f.share.Reinstate(r.Block, at)
	case opAlloc:
		f.share.Restore(r.Addr, r.Name, at)
	case opFree:
		f.share.Release(r.Addr, at)
		f.share.Remember(r.Addr, r.Name, at)
	case opPin:
		n.pins[r.Addr] = &pin{name: r.Name, since: at}
	case opUnpin:
		delete(n.pins, r.Addr)
	case opLend:
		f.share.RestoreLent(r.Addr, r.Name, at)
	case opReturn:
		f.share.Return(r.Addr, at)
	default:
		return fmt.Errorf("%w: unknown record %q", journal.ErrCorrupt, r.Op)
	}
	return nil
}
