package engine

import (
	"context"
	"time"

	"github.com/moby/moby/client"
)

// Event is something that happened on the engine.
type Event struct {
	// Type is "container" or "network".
	Type string
	// Action is the engine's word: "start", "die", "destroy", "create",
	// "health_status: healthy", ...
	Action string
	// ID is the container's or network's id.
	ID string
	// Attributes are, for a container, its labels, "name", "image" and, when
	// it died, "exitCode"; for a network, "name", "type" (its driver) and,
	// when a container joined or left it, "container" (the id).
	Attributes map[string]string
	At         time.Time
}

// Events calls f with each event from now on, in order, until ctx ends or the
// engine breaks the stream off, and returns why. ready is called once the
// engine has begun to send: what it is asked after that misses nothing.
func (e *Engine) Events(ctx context.Context, ready func(), f func(Event)) error {
	filters := client.Filters{}.Add("type", "container", "network").
		Add("event", "create", "start", "kill", "die", "stop", "destroy", "rename", "pause", "unpause", "health_status", "connect", "disconnect")
	// The client's call returns when the engine has answered with the
	// stream's header.
	s := e.cli.Events(ctx, client.EventsListOptions{Filters: filters})
	// An error that is there already means that the stream never began.
	select {
	case err := <-s.Err:
		return wrap("follow engine", err)
	default:
	}
	ready()
	for {
		select {
		case m := <-s.Messages:
			f(Event{
				Type: string(m.Type), Action: string(m.Action), ID: m.Actor.ID,
				Attributes: m.Actor.Attributes, At: time.Unix(0, m.TimeNano),
			})
		case err := <-s.Err:
			return wrap("follow engine", err)
		}
	}
}
