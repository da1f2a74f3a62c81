package controller

import (
	"context"
	"errors"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/placement"
	"clocker.io/clocker/pkg/plan"
)

// draftPatiently is [Controller.draft] for a deploy that is meant: where no
// host takes a replica and a provider could give one that does, it waits for
// it, and shows those replicas as waiting.
func (c *Controller) draftPatiently(ctx context.Context, app *model.Application, send func(api.Progress) error) (*draft, error) {
	began := c.now()
	for {
		d, err := c.think(app, false)
		if err != nil {
			return nil, err
		}
		refused := d.unplaced()
		if refused == nil {
			return d, nil
		}
		var requests []placement.Request
		var waiting []plan.Missing
		for i, p := range d.placed {
			if p.Err() != nil {
				requests = append(requests, p.Request)
				waiting = append(waiting, d.diff.Missing[i])
			}
		}
		again, why := c.awaitHost(ctx, requests, began, func(text string) {
			for _, m := range waiting {
				t := api.Task{App: app.Name, Service: m.Service, Slot: m.Slot, Name: m.Spec.Name, Image: m.Spec.Image, State: "waiting", Waiting: text}
				// A caller that is gone is noticed by ctx.
				_ = send(api.Progress{Task: &t})
			}
		})
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case again:
			continue
		}
		var call *api.CallError
		if why != "" && errors.As(refused, &call) {
			call.Body.Problems = append(call.Body.Problems, why)
		}
		return nil, refused
	}
}
