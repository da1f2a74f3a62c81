// Command netbench measures the way between two network namespaces: one runs
// `netbench serve`, the other one of the measures below, which prints its
// figures as one line of JSON. It lives in the image clocker.io/test/netbench:1
// of the testbed's registry, and benches run it beside containers too.
//
//	serve   [--address ADDR] [--port N]
//	tcp     ADDR [--streams N] [--for D]       bits per second that arrived
//	rtt     ADDR [--protocol tcp|udp] [...]    round-trip times of one byte
//	packets ADDR [--size N] [...]              UDP packets per second that arrived
//	connect ADDR [--streams N] [--for D]       TCP connections per second
//	ping    ADDR [--interval D] [--for D]      packets lost, and the longest gap
//
// Design page: docs/design/speed.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

// figures are what a measure prints. Times are in microseconds but where the
// name says otherwise.
type figures map[string]float64

// options are the flags of all measures; each uses its own.
type options struct {
	address  string // where serve listens, or the server of a measure
	port     int
	streams  int
	size     int
	protocol string
	length   time.Duration
	interval time.Duration
}

var measures = map[string]func(context.Context, options) (figures, error){
	"serve": serve, "tcp": throughput, "rtt": roundTrips, "packets": packets, "connect": connections, "ping": ping,
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "netbench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	var o options
	if len(args) == 0 || measures[args[0]] == nil {
		return errors.New("the first argument is serve, tcp, rtt, packets, connect or ping")
	}
	measure, args := args[0], args[1:]
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		o.address, args = args[0], args[1:]
	} else if measure != "serve" {
		return fmt.Errorf("run %s: the server's address comes first", measure)
	}
	flags := flag.NewFlagSet(measure, flag.ContinueOnError)
	if measure == "serve" {
		flags.StringVar(&o.address, "address", "", "address to listen on; none is all")
	}
	flags.IntVar(&o.port, "port", 7000, "port of the server, TCP and UDP; the next one counts UDP")
	flags.IntVar(&o.streams, "streams", 1, "TCP streams at once")
	flags.IntVar(&o.size, "size", 64, "bytes of a packet's payload")
	flags.StringVar(&o.protocol, "protocol", "tcp", "tcp or udp")
	flags.DurationVar(&o.length, "for", time.Second, "how long to measure; ping with 0 goes on until it is interrupted")
	flags.DurationVar(&o.interval, "interval", 10*time.Millisecond, "time between two packets of ping")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	f, err := measures[measure](ctx, o)
	if err != nil {
		return fmt.Errorf("%s: %w", measure, err)
	}
	return json.NewEncoder(os.Stdout).Encode(f)
}

// percentiles are of times, which are sorted on the way.
func percentiles(times []time.Duration) figures {
	f := figures{"count": float64(len(times))}
	if len(times) == 0 {
		return f
	}
	slices.Sort(times)
	at := func(share float64) float64 {
		return float64(times[min(len(times)-1, int(share*float64(len(times))))]) / float64(time.Microsecond)
	}
	f["p50"], f["p99"], f["max"] = at(0.50), at(0.99), at(1)
	return f
}
