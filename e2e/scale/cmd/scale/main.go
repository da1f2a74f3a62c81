// Command scale plays a large fleet on this machine and prints what each step
// took. The hosts are simulated; see the package documentation of e2e/scale.
//
// Design page: docs/design/scale.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"clocker.io/clocker/e2e/scale"
)

func main() {
	played, err := scale.RunRole()
	if !played {
		err = run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

func run() error {
	var o scale.Options
	flag.IntVar(&o.Hosts, "hosts", 1000, "how many hosts")
	flag.IntVar(&o.Containers, "containers", 30000, "how many containers in all")
	flag.IntVar(&o.Applications, "applications", 30, "how many applications they are of")
	flag.IntVar(&o.AtOnce, "at-once", 2, "how many of them are deployed at the same time")
	flag.IntVar(&o.Followers, "followers", 10, "how many hosts follow the names of the fleet")
	flag.DurationVar(&o.Latency, "latency", 100*time.Millisecond, "what making, starting and stopping a container takes each")
	flag.Int64Var(&o.LeaseSeconds, "lease", 20, "for how many seconds a host counts as alive after its agent was last heard of (real agents: 4); losses are noticed later by the difference")
	limit := flag.Duration("timeout", 20*time.Minute, "when to give up")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	dir, err := os.MkdirTemp("", "clocker-scale-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it is in the temporary directory
	o.Dir = dir
	fmt.Printf("%d simulated hosts, %d containers of %d applications, %d at once; %s for an engine's step, leases of %d s\n",
		o.Hosts, o.Containers, o.Applications, o.AtOnce, o.Latency, o.LeaseSeconds)
	fmt.Printf("%d processors, %s\n", runtime.NumCPU(), scale.Load())
	rows, err := scale.Run(ctx, o, func(r scale.Row) {
		fmt.Fprintf(os.Stderr, "%s: %.2fs %s\n", r.Step, r.Took.Seconds(), r.Note)
	})
	if printErr := scale.Print(os.Stdout, rows); err == nil {
		err = printErr
	}
	fmt.Printf("at the end: %s\n", scale.Load())
	return err
}
