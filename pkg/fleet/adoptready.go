package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"clocker.io/clocker/pkg/api"
)

// awaitReady waits until the controller reports the host ready.
func (a *adoption) awaitReady(ctx context.Context) (api.Host, error) {
	a.say(StepReady, Doing, "waiting for host %s to report", a.o.Name)
	ctx, cancel := context.WithTimeout(ctx, a.o.Wait)
	defer cancel()
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	status := "not there"
	for n := 0; ; n++ {
		hosts, err := a.o.Controller.Hosts(ctx)
		if err != nil && ctx.Err() == nil {
			return api.Host{}, fmt.Errorf("wait for host %s: %w", a.o.Name, err)
		}
		if i := slices.IndexFunc(hosts, func(h api.Host) bool { return h.Name == a.o.Name }); i >= 0 {
			status = hosts[i].Status
			if a.anew && a.known != nil && hosts[i].Since.Equal(a.known.Since) && !a.known.Since.IsZero() {
				status = "not heard of since its agent was made anew"
			}
			if a.upgrade && (hosts[i].Facts == nil || hosts[i].Facts.AgentVersion != a.o.Kit.Version) {
				status = "not heard of with its new agent"
			}
			if slices.Contains([]string{"ready", "cordoned", "draining", "quarantined"}, status) {
				a.say(StepReady, Done, "host %s is %s at %s", a.o.Name, status, hosts[i].Address)
				return hosts[i], nil
			}
		}
		if n%10 == 9 {
			if ended := ending(ctx, a.e, AgentContainer); ended != nil {
				return api.Host{}, fmt.Errorf("wait for host %s: %w", a.o.Name, ended)
			}
		}
		select {
		case <-ctx.Done():
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return api.Host{}, ctx.Err()
			}
			// Its own words say whether it reaches the controller.
			words := lastWords(context.WithoutCancel(ctx), a.e, AgentContainer)
			return api.Host{}, fmt.Errorf("wait for host %s: it is %s after %s; its agent says: %s", a.o.Name, status, a.o.Wait, words)
		case <-t.C:
		}
	}
}
