package fleet

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"clocker.io/clocker/netplugin/bundle"
	"clocker.io/clocker/pkg/fleet/preflight"
)

// enableTimeout is how long, in seconds, the engine waits for the plugin's
// socket, and later for each answer of the plugin.
const enableTimeout = 30

// plugin brings the network plugin about and records which one it is.
func (a *adoption) plugin(ctx context.Context, id *identity) error {
	was, err := a.e.PluginInspect(ctx, PluginName, client.PluginInspectOptions{})
	missing := errdefs.IsNotFound(err)
	if err != nil && !missing {
		return fmt.Errorf("inspect plugin: %w", err)
	}
	if !missing {
		kept, err := a.keepPlugin(ctx, id, was.Plugin.ID, was.Plugin.Enabled)
		if err != nil || kept {
			return err
		}
	}
	a.say(StepPlugin, Doing, "installing plugin %s", PluginName)
	if !missing {
		if err := removePlugin(ctx, a.e); err != nil {
			return err
		}
	}
	err = createPlugin(ctx, a.e, a.o.Kit)
	if missing && !a.upgrade && !errdefs.IsConflict(err) {
		// A plugin that somebody else has just made stays theirs.
		a.undo.add("plugin", func(ctx context.Context) error { return removePlugin(ctx, a.e) })
	}
	if err != nil {
		return err
	}
	if err := a.enable(ctx); err != nil {
		return err
	}
	made, err := a.e.PluginInspect(ctx, PluginName, client.PluginInspectOptions{})
	if err != nil {
		return fmt.Errorf("inspect plugin: %w", err)
	}
	r := preflight.Adopted{}
	if id.adopted != nil {
		r = *id.adopted
	}
	r.PluginID, r.PluginSum, r.Version = made.Plugin.ID, a.o.Kit.pluginSum, a.o.Kit.Version
	carrier, err := a.carrier(ctx)
	if err != nil {
		return err
	}
	defer discard(ctx, a.e, carrier)
	if err := a.record(ctx, carrier, &r); err != nil {
		return err
	}
	a.say(StepPlugin, Done, "plugin %s installed", PluginName)
	return nil
}

// keepPlugin keeps the plugin that is there when it is the same, or when
// networks use it: without its driver a network cannot be used.
func (a *adoption) keepPlugin(ctx context.Context, id *identity, pluginID string, enabled bool) (bool, error) {
	same := id.adopted != nil && id.adopted.PluginID == pluginID && id.adopted.PluginSum == a.o.Kit.pluginSum
	var users []string
	if !same && a.upgrade {
		return false, nil
	}
	if !same {
		ns, err := ownNetworks(ctx, a.e)
		if err != nil {
			return false, err
		}
		for _, n := range ns {
			users = append(users, n.Name)
		}
		if len(users) == 0 {
			return false, nil
		}
	}
	if !enabled {
		if err := a.enable(ctx); err != nil {
			return false, err
		}
	}
	if same {
		a.say(StepPlugin, Kept, "plugin %s is there", PluginName)
	} else {
		a.say(StepPlugin, Note, "plugin %s is of another version and stays, as networks use it: %s; add the host again when they are gone",
			PluginName, strings.Join(users, ", "))
	}
	return true, nil
}

func createPlugin(ctx context.Context, e *client.Client, k *Kit) error {
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := k.writePlugin(w)
		_ = w.CloseWithError(err) // always nil
		written <- err
	}()
	_, err := e.PluginCreate(ctx, r, client.PluginCreateOptions{RepoName: PluginName})
	_ = r.Close() // ends the writer when the engine stopped reading
	if werr := <-written; err == nil && werr != nil {
		err = werr
	}
	if err != nil {
		return fmt.Errorf("create plugin: %w", err)
	}
	return nil
}

// enable enables the plugin, for which it must not ask for a device that the
// machine does not have.
func (a *adoption) enable(ctx context.Context) error {
	if !a.machine.facts.TUN {
		if err := withoutTUN(ctx, a.e); err != nil {
			return err
		}
		a.say(StepPlugin, Note, "the machine has no device %s: networks with the carrier wireguard need a kernel that has WireGuard", bundle.TUN)
	}
	return enablePlugin(ctx, a.e)
}

// withoutTUN has the plugin, which is not enabled, do without its device.
func withoutTUN(ctx context.Context, e *client.Client) error {
	const none = "tun.path=/dev/null"
	if _, err := e.PluginSet(ctx, PluginName, client.PluginSetOptions{Args: []string{none}}); err != nil {
		return fmt.Errorf("set plugin's %s: %w", none, err)
	}
	return nil
}

func enablePlugin(ctx context.Context, e *client.Client) error {
	_, err := e.PluginEnable(ctx, PluginName, client.PluginEnableOptions{Timeout: enableTimeout})
	if err != nil && !strings.Contains(err.Error(), "already enabled") {
		return fmt.Errorf("enable plugin: %w", err)
	}
	return nil
}

// removePlugin takes the plugin away, in use or not; none is no error.
func removePlugin(ctx context.Context, e *client.Client) error {
	_, err := e.PluginDisable(ctx, PluginName, client.PluginDisableOptions{Force: true})
	if err != nil && !errdefs.IsNotFound(err) && !strings.Contains(err.Error(), "already disabled") {
		return fmt.Errorf("disable plugin: %w", err)
	}
	if _, err := e.PluginRemove(ctx, PluginName, client.PluginRemoveOptions{Force: true}); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove plugin: %w", err)
	}
	return nil
}

// driverNames are those under which an engine knows our network driver.
var driverNames = []string{"clocker", PluginName}

// ownNetworks lists the engine's networks that use our driver for links or
// addresses.
func ownNetworks(ctx context.Context, e *client.Client) ([]network.Summary, error) {
	l, err := e.NetworkList(ctx, client.NetworkListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list networks: %w", err)
	}
	var out []network.Summary
	for _, n := range l.Items {
		if slices.Contains(driverNames, n.Driver) || slices.Contains(driverNames, n.IPAM.Driver) {
			out = append(out, n)
		}
	}
	return out, nil
}
