package main

import (
	"context"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"

	"clocker.io/clocker/netplugin/carrier"
	"clocker.io/clocker/netplugin/control"
	"clocker.io/clocker/netplugin/lb"
	"clocker.io/clocker/netplugin/policy"
	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/pkg/version"
)

// answerAgent answers this host's agent about the parts until ctx ends. Those
// of the parts that can say what is wrong with them are asked for it.
func (h host) answerAgent(ctx context.Context, id string, view *topology.View, table *policy.Table, kernel *netlink.Handle, carriers map[string]carrier.Carrier, log *slog.Logger, services *lb.Balancer, routes func(context.Context) error, parts ...any) error {
	parts = append(parts, services)
	for _, name := range slices.Sorted(maps.Keys(carriers)) {
		parts = append(parts, carriers[name])
	}
	applied := func(ctx context.Context, revision int64) error {
		if err := services.Applied(ctx, revision); err != nil {
			return err
		}
		return routes(ctx)
	}
	return control.New(control.Config{
		Host: id, Version: version.Version, Topology: view, Filter: table, Kernel: kernel,
		Carriers: carriers, Applied: applied, Checkers: control.Checkers(parts...), Log: log.With("component", "control"),
	}).Run(ctx, filepath.Join(h.state, filepath.Base(control.Socket)))
}
