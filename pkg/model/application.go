package model

// Application is what a user deploys: the root of a tree of entities with the
// networks they share. The zero value is not valid; front ends make it and
// [Validate] checks it.
type Application struct {
	// Name identifies the application in the fleet. It matches
	// [a-z0-9][a-z0-9_-]* and is at most 63 bytes long.
	Name string `json:"name"`
	// Title is the display name; empty means Name.
	Title       string `json:"title,omitempty"`
	Description string `json:"description,omitempty"`
	Origin      string `json:"origin,omitempty"`
	Version     string `json:"version,omitempty"`
	// Dialect is the front end that made the model: "compose" or "blueprint".
	Dialect string `json:"dialect"`
	// Location is the default for entities that name none; nil means the
	// fleet that receives the deploy.
	Location *Location `json:"location,omitempty"`
	// Entities are the children of the root, in the order of the file.
	Entities []*Entity `json:"entities"`
	// Networks are the networks the file declares, with the application's
	// own default network first.
	Networks []*Network        `json:"networks,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
}

// Kind says what an entity is.
type Kind string

// The kinds of entities.
const (
	// KindService is an entity whose members are replicas of one container.
	KindService Kind = "service"
	// KindGroup is an entity that only owns children (clusters, nested
	// applications).
	KindGroup Kind = "group"
)

// Entity is one node of the application tree.
type Entity struct {
	// ID is the plan id, unique in the application: the compose service's
	// name or the blueprint's `id`.
	ID string `json:"id"`
	// Name is the display name; empty means ID.
	Name string `json:"name,omitempty"`
	Kind Kind   `json:"kind"`
	// Type is the type as the file wrote it, such as "docker:redis:3".
	Type string `json:"type,omitempty"`
	// Location replaces the inherited one when not nil.
	Location *Location `json:"location,omitempty"`
	// Service is set when Kind is KindService.
	Service  *Service  `json:"service,omitempty"`
	Children []*Entity `json:"children,omitempty"`
	// Config holds configuration that only policies and late-bound values
	// read.
	Config map[string]Value `json:"config,omitempty"`
	// Position is where the entity stands in the user's file.
	Position Position `json:"position,omitzero"`
}

// Location says where an entity runs. Kind is "fleet" for a named fleet or
// for the empty Spec; every other kind is another engine or a cloud, resolved
// by pkg/location.
type Location struct {
	// Kind is "fleet", "localhost", "byon", "jclouds", "marathon", ...
	Kind string `json:"kind"`
	// Name is what the file wrote, such as "my-docker-cloud".
	Name string `json:"name"`
	// Host pins to one host of the fleet; empty means any.
	Host     string            `json:"host,omitempty"`
	Config   map[string]string `json:"config,omitempty"`
	Position Position          `json:"position,omitzero"`
}

// Walk calls f for each entity of the application, parents before children,
// in file order.
func (a *Application) Walk(f func(parent, e *Entity)) {
	var walk func(parent *Entity, es []*Entity)
	walk = func(parent *Entity, es []*Entity) {
		for _, e := range es {
			f(parent, e)
			walk(e, e.Children)
		}
	}
	walk(nil, a.Entities)
}

// Entity returns the entity with the given plan id, or nil.
func (a *Application) Entity(id string) *Entity {
	var found *Entity
	a.Walk(func(_, e *Entity) {
		if found == nil && e.ID == id {
			found = e
		}
	})
	return found
}

// Services returns every entity of kind service, in file order.
func (a *Application) Services() []*Entity {
	var out []*Entity
	a.Walk(func(_, e *Entity) {
		if e.Kind == KindService {
			out = append(out, e)
		}
	})
	return out
}

// Network returns the declared network with the given name, or nil.
func (a *Application) Network(name string) *Network {
	for _, n := range a.Networks {
		if n.Name == name {
			return n
		}
	}
	return nil
}
