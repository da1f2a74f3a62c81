package fleet

import (
	"clocker.io/clocker/netplugin/bundle"
	"clocker.io/clocker/pkg/record"

	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"clocker.io/clocker/pkg/api"
)

// DefaultName is the fleet that Init makes when it is given no name: the one
// the deck's blueprints are deployed to.
const DefaultName = "my-docker-cloud"

// The names of what is made on engines.
const (
	ControllerContainer = "clocker-controller"
	AgentContainer      = "clocker-agent"
	// DataVolume and ConfigVolume are a controller's two directories.
	DataVolume   = "clocker-controller"
	ConfigVolume = "clocker-controller-config"
	// PluginName is the managed plugin, as the engine knows it.
	PluginName = bundle.Name
	// PluginBinary is the file that becomes the plugin.
	PluginBinary = "clocker-net"
)

// The labels of what is made on engines.
const (
	LabelFleet   = record.LabelFleet
	LabelSystem  = record.LabelSystem
	LabelNetwork = record.LabelNetwork
	LabelHost    = record.LabelHost
)

// The values of [LabelSystem].
const (
	SystemAgent      = "agent"
	SystemController = "controller"
	SystemProbe      = "probe"
)

// Step says what part of an action a [Progress] is about.
type Step string

// The steps, in the order an action comes to them.
const (
	StepEngine      Step = "engine"
	StepImage       Step = "image"
	StepPreflight   Step = "preflight"
	StepCertificate Step = "certificate"
	StepController  Step = "controller"
	StepRegister    Step = "register"
	StepFiles       Step = "files"
	StepPlugin      Step = "plugin"
	StepAgent       Step = "agent"
	StepReady       Step = "ready"
	StepDrain       Step = "drain"
	StepNetworks    Step = "networks"
	StepClean       Step = "clean"
	StepProfile     Step = "profile"
	StepUndo        Step = "undo"
	StepMember      Step = "member"
	StepSnapshot    Step = "snapshot"
)

// State says how far a step is.
type State string

// The states of a step.
const (
	Doing State = "doing"
	Done  State = "done"
	// Kept means that there was nothing to do.
	Kept State = "kept"
	// Note is something the user should know; it is no failure.
	Note State = "note"
)

// Progress is one line of a long action.
type Progress struct {
	// Subject is the host's name, or its endpoint before the name is known,
	// or the fleet's name.
	Subject string
	Step    Step
	State   State
	// Text is a sentence in lower case without a full stop, such as
	// "image clocker.io/clocker:0.1.0 loaded".
	Text string
}

// oneAtATime makes a callback, which may be nil, safe for several goroutines.
func oneAtATime(f func(Progress)) func(Progress) {
	var mu sync.Mutex
	return func(p Progress) {
		mu.Lock()
		defer mu.Unlock()
		if f != nil {
			f(p)
		}
	}
}

// Controller is the part of a controller's API that adopting hosts needs;
// [api.Client] is one.
type Controller interface {
	Info(ctx context.Context) (api.Info, error)
	Hosts(ctx context.Context) ([]api.Host, error)
	RegisterHost(ctx context.Context, r api.HostRequest) (api.HostCredentials, error)
	RemoveHost(ctx context.Context, host string, force bool, f func(api.Progress) error) error
}

var _ Controller = (*api.Client)(nil)

// What callers branch on.
var (
	// ErrOtherFleet means that the engine belongs to another fleet.
	ErrOtherFleet = errors.New("engine belongs to another fleet")
	// ErrNoFleet means that the user's machine knows no such fleet.
	ErrNoFleet = errors.New("no such fleet")
	// ErrInUse means that something would be lost, which force allows.
	ErrInUse = errors.New("in use")
	// ErrBusy means that another command is making or changing a fleet.
	ErrBusy = errors.New("another docker clocker command is at work here: try again when it is done")
	// ErrUnreachable means that a host's engine does not answer.
	ErrUnreachable = errors.New("engine does not answer")
	// ErrName means that a name is not one that fleets and hosts can have.
	ErrName = errors.New("invalid name")
)

// Problems is everything that keeps an engine from being adopted, found in
// one look. Each is one line: what is wrong and what to do about it.
type Problems struct {
	// Subject is the host's name or endpoint.
	Subject string
	List    []string
}

// Error lists the problems, one a line.
func (p *Problems) Error() string {
	if len(p.List) == 1 {
		return p.Subject + ": " + p.List[0]
	}
	return fmt.Sprintf("%s: %d problems:\n  %s", p.Subject, len(p.List), strings.Join(p.List, "\n  "))
}

var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// CheckName reports whether a name can be a fleet's or a host's: lower-case
// letters, digits and dashes, 1 to 63 of them, a letter or digit at both ends
// (RFC 1123 label). The error matches [ErrName].
func CheckName(kind, name string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("%s %q: %w: lower-case letters, digits and dashes, at most 63", kind, name, ErrName)
	}
	return nil
}

// HostName turns an engine's host name into a name for a host: its first
// label, in lower case, with dashes for all else. It may be empty.
func HostName(hostname string) string {
	s := strings.ToLower(hostname)
	if i := strings.IndexByte(s, '.'); i >= 0 {
		s = s[:i]
	}
	s = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, s)
	if len(s) > 63 {
		s = s[:63]
	}
	return strings.Trim(s, "-")
}
