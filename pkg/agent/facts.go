package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"reflect"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"clocker.io/clocker/pkg/engine"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
	"clocker.io/clocker/pkg/version"
)

// protoClocker and protoBridged mark the routes that the network plugin makes.
const (
	protoClocker = 142
	protoBridged = 143
)

// factsEvery is how often sockets are looked at: the kernel tells nobody of
// new ones.
const factsEvery = 10 * time.Second

// facts publishes what is to be known about the host.
type facts struct {
	identity
	// own are ports that are not somebody else's.
	own   *ownPorts
	store *store.Store
	log   *slog.Logger
	now   func() time.Time
	// info is asked for the engine's part; ok is false before the engine
	// has been reached.
	info func() (i engine.Info, ok bool)
	// machine is where the rest is found out.
	machine machineFacts
	// again asks for a look, after the engine was reached or etcd was found
	// to know the host.
	again chan struct{}
	// tick is called on each turn.
	tick func()
}

// run publishes until ctx ends: on each change, and when etcd has lost them.
func (f *facts) run(ctx context.Context) {
	routes := make(chan netlink.RouteUpdate, 64)
	done := make(chan struct{})
	defer close(done)
	if err := netlink.RouteSubscribe(routes, done); err != nil {
		f.log.Warn("routes cannot be followed, looking at them now and then", "error", err)
		routes = nil
	}
	every := time.NewTicker(factsEvery)
	defer every.Stop()
	var last record.HostFacts
	for {
		if i, ok := f.info(); ok {
			now := f.gather(ctx, i)
			if !reflect.DeepEqual(now, last) {
				if err := f.put(ctx, now); err != nil {
					f.log.Debug("facts cannot be written", "error", err)
				} else {
					last = now
				}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-f.again:
			last = record.HostFacts{}
		case <-every.C:
			f.tick()
		case _, ok := <-routes:
			if !ok {
				routes = nil
				continue
			}
			// Routes come in flocks.
			if !pause(ctx, 500*time.Millisecond) {
				return
			}
			for len(routes) > 0 {
				<-routes
			}
		}
	}
}

func (f *facts) put(ctx context.Context, h record.HostFacts) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	h.At = f.now()
	// A host that was removed meanwhile must not leave a key behind.
	_, err := f.store.Txn().Exists(f.store.Keys.HostSpec(f.Host)).Put(f.store.Keys.HostFacts(f.Host), h).Commit(ctx)
	return err
}

// refresh asks for a look.
func (f *facts) refresh() {
	select {
	case f.again <- struct{}{}:
	default:
	}
}

func (f *facts) gather(ctx context.Context, i engine.Info) record.HostFacts {
	h := record.HostFacts{
		AgentVersion: version.Get().Version, EngineVersion: i.EngineVersion, APIVersion: i.APIVersion,
		OS: i.OS, Architecture: i.Architecture, Kernel: i.Kernel, CPUs: i.CPUs,
		MemoryBytes: i.MemoryBytes, EngineLabels: i.Labels,
	}
	f.machine.fill(ctx, &h, f.log)
	var err error
	if h.Routes, err = hostRoutes(); err != nil {
		f.log.Warn("routes cannot be read", "error", err)
	}
	if h.Listening, err = hostListening(); err != nil {
		f.log.Warn("sockets cannot be read", "error", err)
	}
	h.Listening = f.own.without(h.Listening)
	return h
}

// hostRoutes lists the destinations of the main table's routes, without the
// default route, what the network plugin made, and single addresses.
func hostRoutes() ([]string, error) {
	all, err := netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var out []string
	for _, r := range all {
		if r.Dst == nil || r.Protocol == protoClocker || r.Protocol == protoBridged {
			continue
		}
		if ones, bits := r.Dst.Mask.Size(); ones == 0 || ones == bits {
			continue
		}
		out = append(out, (&net.IPNet{IP: r.Dst.IP.Mask(r.Dst.Mask), Mask: r.Dst.Mask}).String())
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func hostListening() ([]string, error) {
	portRange, _ := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	from := ephemeralFrom(string(portRange))
	var out []string
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		ports, err := readTable(table, from)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // no IPv6 on this host
			return nil, err
		}
		out = append(out, ports...)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func readTable(name string, from uint16) ([]string, error) {
	f, err := os.Open("/proc/net/" + name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return listening(f, name, from)
}
