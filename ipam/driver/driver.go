package driver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"golang.org/x/sync/singleflight"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"clocker.io/clocker/ipam/journal"
	"clocker.io/clocker/pkg/store"
)

// Config is what a driver needs. Host, Store, Dir and Log must be set.
type Config struct {
	// Host is the host's id.
	Host string
	// Store is the fleet's etcd; it need not be reachable.
	Store *store.Store
	// Dir is where the journal is kept; it is made when missing.
	Dir string
	Log *slog.Logger
	// Now is the clock; nil means [time.Now].
	Now func() time.Time
	// Cooldown is how long a released address rests before somebody else
	// gets it, while there are others; 0 means 30 s.
	Cooldown time.Duration
	// IdleReturn is how long a block rests unused before the host gives it
	// back to the network; 0 means 5 min.
	IdleReturn time.Duration
	// Grace is for how long an address must have been seen unused before
	// [Driver.Reconcile] releases it; 0 means 60 s.
	Grace time.Duration
	// Tick is how often Run looks for blocks to give back; 0 means 5 s.
	Tick time.Duration
	// Settle is for how long nothing is claimed after etcd was restored from
	// an older state and this host has written what it has to it again: the
	// time for the other hosts to do the same; 0 means 30 s.
	Settle time.Duration
	// Alive is how long etcd waits before it counts the plugin as gone; 0
	// means 10 s.
	Alive time.Duration
	// Timeout bounds the work in etcd that a call waits for; 0 means 3 s.
	Timeout time.Duration
	// Answer is for how long another host is waited for that is asked for an
	// address of its blocks; 0 means 1 s.
	Answer time.Duration
	// Doubt is for how long an address that is held must have been without an
	// endpoint before it is given to who asks for it; 0 means 500 ms. It is
	// less than Answer.
	Doubt time.Duration
	// Routes are the destinations of the host's own routes, which new
	// subnets keep away from; those of the fleet's networks must not be
	// among them. May be nil.
	Routes func() ([]netip.Prefix, error)
	// InUse reports whether the host still has an endpoint with an address.
	// An address that is held in name only is given to whoever asks for it
	// explicitly. nil means that every address held is in use.
	InUse func(network string, a netip.Addr) bool
}

// Driver is one host's address management. It implements the engine's calls
// as [ipam.Ipam] and is safe for concurrent use. [Driver.Run] must run for
// what it does to reach etcd.
type Driver struct {
	cfg   Config
	st    *store.Store
	log   *slog.Logger
	ctx   context.Context // ends with Close
	stop  context.CancelFunc
	tasks sync.WaitGroup
	// wake tells Run that there is something to publish.
	wake  chan struct{}
	grows singleflight.Group

	mu      sync.Mutex
	journal *journal.Journal
	// epoch names the journal: blocks claimed under another one are not
	// ours to give addresses of.
	epoch    int64
	networks map[string]*network
	// making are the ids of networks that are being made: etcd may have
	// them before networks does.
	making map[string]bool
	// away is since when etcd cannot be reached, zero while it can; probed
	// is when that was last tried.
	away, probed time.Time
	// suspects are held addresses that nobody was seen to use, with the
	// time of the first sight.
	suspects map[suspect]time.Time
	healed   time.Time // last try to mend a broken journal
	// seen is how far etcd has come, unseen that the journal does not know
	// it. restored is since when etcd is behind that, zero when it is not;
	// until settled nothing is claimed.
	seen   horizon
	unseen bool
	// unanswered says that a publishing transaction got no answer; guarded by mu.
	unanswered        bool
	restored, settled time.Time
	// strangers means that etcd may say of networks that are not known here
	// that something of them is this host's.
	strangers bool
	// asked means that other hosts may have asked for addresses.
	asked bool
	// rebuilding is since when old blocks of a network are watched.
	rebuilding map[string]time.Time

	// refused is when questions were refused; used by Run only.
	refused map[string]time.Time
}

var _ ipam.Ipam = (*Driver)(nil)

// Open reads the journal and returns a driver that can serve at once, whether
// etcd can be reached or not. The caller runs [Driver.Run] and, at the end,
// [Driver.Close].
func Open(cfg Config) (*Driver, error) {
	cfg.defaults()
	d := &Driver{
		cfg: cfg, st: cfg.Store, log: cfg.Log.With("component", "ipam"),
		wake: make(chan struct{}, 1), networks: map[string]*network{}, making: map[string]bool{}, suspects: map[suspect]time.Time{},
		rebuilding: map[string]time.Time{}, refused: map[string]time.Time{},
	}
	d.ctx, d.stop = context.WithCancel(context.Background())
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open address journal: %w", err)
	}
	if err := d.open(filepath.Join(cfg.Dir, "addresses.journal")); err != nil {
		return nil, fmt.Errorf("open address journal: %w", err)
	}
	// What an earlier run published at its end may come after what this one does.
	d.unanswered = len(d.networks) > 0
	for _, n := range d.networks {
		n.afterReplay(d.cfg.Host)
	}
	return d, nil
}

func (c *Config) defaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&c.Cooldown, 30*time.Second)
	set(&c.IdleReturn, 5*time.Minute)
	set(&c.Grace, time.Minute)
	set(&c.Tick, 5*time.Second)
	set(&c.Timeout, 3*time.Second)
	set(&c.Answer, time.Second)
	set(&c.Doubt, 500*time.Millisecond)
	set(&c.Settle, 30*time.Second)
	set(&c.Alive, 10*time.Second)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Routes == nil {
		c.Routes = func() ([]netip.Prefix, error) { return nil, nil }
	}
}

// open replays the journal. One that is damaged, or another host's, is put
// aside: what it said is lost, so the driver starts with a new epoch, and the
// blocks of the old one stay untouched until somebody knows what is held.
func (d *Driver) open(path string) error {
	j, err := journal.Open(path, d.replay)
	if errors.Is(err, journal.ErrCorrupt) || errors.Is(err, errOtherHost) {
		aside := fmt.Sprintf("%s.aside-%d", path, d.cfg.Now().UnixMilli())
		d.log.Error("address journal cannot be used: starting a new one", "error", err, "kept", aside)
		if err := os.Rename(path, aside); err != nil {
			return err
		}
		d.networks, d.epoch, d.seen = map[string]*network{}, 0, horizon{}
		j, err = journal.Open(path, d.replay)
	}
	if err != nil {
		return err
	}
	d.journal = j
	if d.epoch != 0 {
		return nil
	}
	// Milliseconds rise from one lost journal to the next without anybody
	// having to be asked.
	d.epoch = d.cfg.Now().UnixMilli()
	if err := d.append(entry{Op: opEpoch, Epoch: d.epoch, Host: d.cfg.Host}).Wait(); err != nil {
		_ = j.Close()
		return err
	}
	return nil
}

// Close ends what runs in the background and closes the journal.
func (d *Driver) Close() error {
	d.stop()
	d.tasks.Wait()
	return d.journal.Close()
}

// GetCapabilities answers that the engine need neither make MAC addresses nor
// replay what it asked for earlier.
func (d *Driver) GetCapabilities() (*ipam.CapabilitiesResponse, error) {
	return &ipam.CapabilitiesResponse{}, nil
}

// The address spaces. They differ only in what the engine checks.
const (
	LocalSpace  = "clocker-local"
	GlobalSpace = "clocker-global"
)

// GetDefaultAddressSpaces answers the names of the address spaces.
func (d *Driver) GetDefaultAddressSpaces() (*ipam.AddressSpacesResponse, error) {
	return &ipam.AddressSpacesResponse{LocalDefaultAddressSpace: LocalSpace, GlobalDefaultAddressSpace: GlobalSpace}, nil
}

// request is a context for the work in etcd that a call waits for.
func (d *Driver) request() (context.Context, context.CancelFunc) {
	return context.WithTimeout(d.ctx, d.cfg.Timeout)
}

// background runs f unless the driver is closing.
func (d *Driver) background(f func()) {
	if d.ctx.Err() == nil {
		d.tasks.Go(f)
	}
}

// kick makes Run look for something to publish.
func (d *Driver) kick() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// saw notes whether etcd answered, and returns err.
func (d *Driver) saw(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.probed = d.cfg.Now()
	switch gone := absent(err); {
	case !gone && !d.away.IsZero():
		d.log.Info("etcd is back", "away", d.probed.Sub(d.away))
		d.away = time.Time{}
	case gone && d.away.IsZero() && d.ctx.Err() == nil:
		d.log.Warn("etcd cannot be reached", "error", err)
		d.away = d.probed
	}
	return err
}

// absent reports whether an error means that etcd gave no answer.
func absent(err error) bool {
	if err == nil {
		return false
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return true
	}
	var code codes.Code
	if e := (rpctypes.EtcdError{}); errors.As(err, &e) {
		code = e.Code()
	} else if s := interface{ GRPCStatus() *status.Status }(nil); errors.As(err, &s) {
		code = s.GRPCStatus().Code()
	} else {
		return false
	}
	return code == codes.Unavailable || code == codes.DeadlineExceeded || code == codes.Canceled
}

// unreachable describes the absence of etcd, or is nil; mu is held.
func (d *Driver) unreachable() error {
	if d.away.IsZero() {
		return nil
	}
	return fmt.Errorf("etcd unreachable since %s", d.away.UTC().Format(time.RFC3339))
}

// explain puts what an error means for the caller before it; where etcd gave
// no answer it says since when, in place of the error.
func (d *Driver) explain(what string, err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if away := d.unreachable(); away != nil && absent(err) {
		return fmt.Errorf("%s; %w", what, away)
	}
	return err
}
