package command

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"clocker.io/clocker/cli-plugin/formatter"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
)

// headroomFlags are the flags of headroom set; only those that are given
// change anything.
type headroomFlags struct {
	count, min, max               int
	percent, cpu, memory          string
	rooms                         []string
	up, down                      time.Duration
	lost                          string
	lostWithData                  bool
	removeEmpty, evenWithStranger bool
	reset                         bool
}

func newHeadroomSetCommand(e *Env) *cobra.Command {
	var o headroomFlags
	cmd := &cobra.Command{
		Use:   "set [OPTIONS]",
		Short: "Say how much room is kept free, and by how many hosts",
		Long: `Say how much room is kept free, and by how many hosts.

Room is a number of containers (--count) or a share of all that the fleet can hold
(--percent), CPUs and memory that nothing reserves, and room for more replicas of
services (--for); what asks for most hosts counts. For --count and --percent a host
holds as many containers as the fleet's placement policy allows, or 8.

Only what is given changes; 0 takes a number away, --for APP/SERVICE=0 that room.
Hosts are added from the fleet's providers when room has been lacking for
--up-delay. With --remove-empty, hosts of providers on which nothing has run for
--down-delay go back when all the room stays without them; never the last one, none
below --min, and none with containers of others unless --even-with-strangers.

The machine of a host of a provider that is lost for --lost-delay is given back,
reached or not; none while many hosts are lost at once.`,
		Example: `  docker clocker headroom set --count 4 --max 8 --remove-empty
  docker clocker headroom set --percent 20% --min 3
  docker clocker headroom set --cpu 4 --memory 8GiB --for shop/web=2`,
		Args:              args(cli.NoArgs),
		RunE:              func(cmd *cobra.Command, _ []string) error { return runHeadroomSet(cmd.Context(), e, cmd.Flags(), o) },
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.IntVar(&o.count, "count", 0, "Containers to keep room for")
	f.StringVar(&o.percent, "percent", "", "Share of all containers to keep free: 20%, or 0.2")
	f.StringVar(&o.cpu, "cpu", "", "CPUs to keep free: 2, or 0.5")
	f.StringVar(&o.memory, "memory", "", "Memory to keep free: 4GiB")
	f.StringArrayVar(&o.rooms, "for", nil, "Room for more replicas of a service, APP/SERVICE=N")
	f.IntVar(&o.min, "min", 0, "Fewest hosts")
	f.IntVar(&o.max, "max", 0, "Most hosts (default: no bound)")
	f.DurationVar(&o.up, "up-delay", 0, "How long room must be lacking before a host is asked for (default 30s)")
	f.DurationVar(&o.down, "down-delay", 0, "How long a host must be empty, and not needed, before it goes (default 5m)")
	f.BoolVar(&o.removeEmpty, "remove-empty", false, "Remove hosts of providers that nothing runs on")
	f.BoolVar(&o.evenWithStranger, "even-with-strangers", false, "Remove them also with containers or volumes that Clocker did not make")
	f.StringVar(&o.lost, "lost-delay", "", "How long a host of a provider is lost before its machine is given back, or never (default 10m)")
	f.BoolVar(&o.lostWithData, "lost-with-data", false, "Give it back also when replicas wait for the data that they wrote there")
	f.BoolVar(&o.reset, "reset", false, "Forget what was set before")
	return cmd
}

func runHeadroomSet(ctx context.Context, e *Env, f *pflag.FlagSet, o headroomFlags) error {
	if f.NFlag() == 0 {
		return usageError{errors.New("nothing to set: see docker clocker headroom set --help")}
	}
	return e.with(func(c *api.Client) error {
		was, err := c.Headroom(ctx)
		if err != nil {
			return err
		}
		p := was.Policy
		if o.reset {
			p = clearRoom(p)
		}
		if err := o.change(f.Changed, &p); err != nil {
			return err
		}
		h, err := c.SetHeadroom(ctx, api.HeadroomRequest{Policy: p, Revision: was.Revision})
		if err != nil {
			return err
		}
		return formatter.Headroom(formatter.Options{Out: e.cli.Out(), Now: e.clock.Now()}, h)
	})
}

// change carries the flags that are given over; every problem comes at once.
func (o headroomFlags) change(given func(string) bool, p *record.HeadroomPolicy) error {
	var errs []error
	set := func(flag string, f func() error) {
		if given(flag) {
			if err := f(); err != nil {
				errs = append(errs, fmt.Errorf("--%s: %w", flag, err))
			}
		}
	}
	plain := func(flag string, f func()) { set(flag, func() error { f(); return nil }) }
	plain("count", func() {
		p.Count = o.count
		if !given("percent") && o.count != 0 {
			p.Percent = 0
		}
	})
	set("percent", func() (err error) {
		p.Percent, err = share(o.percent)
		if !given("count") && p.Percent != 0 {
			p.Count = 0
		}
		return err
	})
	set("cpu", func() (err error) { p.CPU, err = nanoCPUs(o.cpu); return err })
	set("memory", func() (err error) { p.Memory, err = size(o.memory); return err })
	set("for", func() error { return o.keepFor(p) })
	plain("min", func() { p.MinHosts = o.min })
	plain("max", func() { p.MaxHosts = o.max })
	plain("up-delay", func() { p.UpDelay = delay(o.up) })
	plain("down-delay", func() { p.DownDelay = delay(o.down) })
	plain("remove-empty", func() { p.RemoveEmpty = o.removeEmpty })
	plain("even-with-strangers", func() { p.EvenWithStrangers = o.evenWithStranger })
	set("lost-delay", func() (err error) { p.LostDelay, err = lostDelay(o.lost); return err })
	plain("lost-with-data", func() { p.LostWithData = o.lostWithData })
	if err := errors.Join(errs...); err != nil {
		return usageError{err}
	}
	return nil
}

// lostDelay reads a time, or "never".
func lostDelay(s string) (time.Duration, error) {
	if s == "never" {
		return -1, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is no time: write 10m, or never", s)
	}
	return d, nil
}

// keepFor changes the services that room is kept for.
func (o headroomFlags) keepFor(p *record.HeadroomPolicy) error {
	var errs []error
	for _, text := range o.rooms {
		name, number, ok := strings.Cut(text, "=")
		app, service, two := strings.Cut(name, "/")
		n, err := strconv.Atoi(number)
		if !ok || !two || app == "" || service == "" || err != nil || n < 0 {
			errs = append(errs, fmt.Errorf("%q is not APP/SERVICE=N", text))
			continue
		}
		p.For = slices.DeleteFunc(slices.Clone(p.For), func(f record.HeadroomFor) bool { return f.App == app && f.Service == service })
		if n > 0 {
			p.For = append(p.For, record.HeadroomFor{App: app, Service: service, N: n})
		}
	}
	return errors.Join(errs...)
}

// delay is a window as the policy has it, where 0 means the default.
func delay(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

// share reads "20%", "20 %" or "0.2".
func share(s string) (float64, error) {
	number, percent := strings.CutSuffix(strings.TrimSpace(s), "%")
	f, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if percent {
		f /= 100
	}
	if err != nil || f < 0 || f >= 1 {
		return 0, fmt.Errorf("%q is no share between 0%% and 100%%: write 20%% or 0.2", s)
	}
	return f, nil
}

// nanoCPUs reads a number of CPUs.
func nanoCPUs(s string) (int64, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f < 0 || f > 1e6 {
		return 0, fmt.Errorf("%q is no number of CPUs", s)
	}
	return int64(f*1e9 + 0.5), nil
}

// size reads a number of bytes, as docker's own flags do.
func size(s string) (int64, error) {
	n, err := units.RAMInBytes(s)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is no size: write 512MiB or 4GiB", s)
	}
	return n, nil
}
