// Package location is where hosts come from: providers of machines, and what
// becomes of a machine from the moment it is asked for until it is given back.
//
// A [Provider] may be a list of machines that are there ("byon", "standby") or
// something that makes them, takes minutes for it and wants to be paid. All
// end at an address at which a machine is reached over SSH, or an engine over
// TLS; what follows is the same for each. Every machine has a record in etcd
// that is written before its provider is asked, and carries a tag by which the
// machine is found again, so that a controller that dies in the middle leaks
// none and pays for none twice. [Next] and [After] say what to do; they do
// nothing themselves.
//
// The package adopts no host and writes no etcd: pkg/controller does.
//
// Design page: docs/design/location.md.
package location

import (
	"context"
	"errors"
	"fmt"
	"time"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
)

// The kinds of providers that this program has.
const (
	// KindBYON is a list of machines reached over SSH (bring your own node),
	// each used by one host at a time; an engine is installed where asked.
	KindBYON = "byon"
	// KindStandby is a list of engines that run and wait.
	KindStandby = "standby"
)

// Provider gives machines. Its methods may be called at the same time, and
// again after an interruption: each looks at what is there first. Whoever
// carries it out may die between any two of them.
type Provider interface {
	// Offers are what it could give now, the ones to take first coming first;
	// it answers at once, from what it knows.
	Offers() []Offer
	// Create begins to make a machine and returns without waiting for it. Asked
	// twice with the same tag it makes one. What cannot be is an [*OrderError],
	// a limit a [*QuotaError], nothing left [ErrExhausted].
	Create(ctx context.Context, o Order) (Machine, error)
	// Find lists the machines that carry a tag, those being made included.
	Find(ctx context.Context, tag string) ([]Machine, error)
	// Status looks at a machine again; [ErrGone] when there is none.
	Status(ctx context.Context, handle string) (Machine, error)
	// Release gives a machine back, and ends the making of one that is not
	// ready. One that is gone already is no error.
	Release(ctx context.Context, handle string) error
}

// Offer is a kind of machine that a provider could give.
type Offer struct {
	// ID is the provider's own name for it. Where Single is set it is one
	// machine, whose handle it is, and can be given once at a time.
	ID     string
	Single bool
	// Name is the name that its host gets; empty means the engine's own, and
	// where several can be given.
	Name string
	// Labels are what its host will have, Capacity what containers may use of
	// it and Platform its "os/arch"; 0 and empty mean not known.
	Labels   map[string]string
	Capacity model.Amounts
	Platform string
	Price    Price
}

// Price is what a machine costs; the zero value means nothing.
type Price struct {
	// Amount is in the currency, for each Per.
	Amount   float64
	Currency string // ISO 4217
	Per      time.Duration
}

// Order asks for a machine.
type Order struct {
	// Tag names the machine for us and marks it at the provider: asked for
	// twice, it is made once.
	Tag string
	// Fleet marks it too, for people.
	Fleet string
	// Offer is one of the provider's; Name the host's, may be empty.
	Offer, Name string
	// Image, Size and SecurityGroups are the provider's own names; empty means
	// what it is configured with. Tags are more marks.
	Image, Size    string
	SecurityGroups []string
	Tags           map[string]string
}

// Machine is a machine as its provider sees it.
type Machine struct {
	// Handle is the provider's own name for it.
	Handle string
	State  string
	// Endpoint is ssh://user@host[:port], or tcp://host:port of an engine;
	// set once it is ready. HostKey is its SSH host key in the form of
	// authorized_keys.
	Endpoint, HostKey string
	// Labels are given to its host.
	Labels map[string]string
	// Error says why it failed.
	Error string
}

// The states of a machine at its provider.
const (
	Pending = "pending" // it is being made
	Ready   = "ready"
	Failed  = "failed" // it will never be ready, and is to be released
)

// What callers branch on.
var (
	// ErrExhausted means that nothing is left to give.
	ErrExhausted = errors.New("no machine is left")
	// ErrGone means that there is no such machine.
	ErrGone = errors.New("machine is gone")
	// ErrUncleaned means that the host of a machine is out of the fleet, and that
	// what is on the machine stays, as nothing answers there.
	ErrUncleaned = errors.New("what is on it could not be taken away")
	// ErrKind means that this program knows no such kind of provider.
	ErrKind = errors.New("unknown kind of provider")
)

// QuotaError means that the provider's owner allows no more.
type QuotaError struct {
	// What is limited ("instances", "vCPUs", "money per month").
	What        string
	Limit, Used float64
	// Until is when that may change; zero when nobody knows.
	Until time.Time
}

func (e *QuotaError) Error() string {
	return fmt.Sprintf("the provider's quota of %s is used up (%g of %g)", e.What, e.Used, e.Limit)
}

// OrderError means that an order can never be met: trying again cannot help.
type OrderError struct{ Reason string }

func (e *OrderError) Error() string { return e.Reason }

// Open returns the provider of a record. The error matches [ErrKind] when this
// program does not know its kind.
func Open(p record.Provider) (Provider, error) {
	switch p.Kind {
	case KindBYON, KindStandby:
		return list{p}, nil
	}
	return nil, fmt.Errorf("provider %s: %w: %q (there are %s and %s)", p.Name, ErrKind, p.Kind, KindBYON, KindStandby)
}

// Lasting reports whether a provider's machines stay when they are released:
// what is on them must be taken away, and a failed one stays set aside.
func Lasting(kind string) bool { return kind == KindBYON || kind == KindStandby }
