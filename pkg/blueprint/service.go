package blueprint

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/source/document"
)

// setting is one configuration key of a service as the file gives it.
type setting struct {
	entry
	full string
}

// draft is a service half read: ids must be known before links are.
type draft struct {
	node     *yaml.Node
	path     string
	entries  []entry
	typ      *entry
	id       *entry
	settings map[string]setting
}

// services reads the list of services into the application.
func (r *reader) services(e *entry, app *model.Application) {
	if e.value == nil || e.value.Kind != yaml.SequenceNode {
		r.add(e.value, e.path, "begin each service with \"- type: docker:IMAGE\"", "services must be a list, found %s", document.KindName(e.value))
		return
	}
	if len(e.value.Content) == 0 {
		r.add(e.value, e.path, "begin each service with \"- type: docker:IMAGE\"", "the list of services is empty")
	}
	var drafts []*draft
	for i, n := range items(e.value) {
		d := r.draft(n, document.Index(e.path, i))
		if isNetwork(d) {
			app.Networks = append(app.Networks, r.network(d))
			continue
		}
		drafts = append(drafts, d)
	}
	if len(drafts) == 0 && len(app.Networks) > 1 {
		r.add(e.value, e.path, "add a service of type docker:IMAGE, or make networks alone with docker clocker network create",
			"the blueprint has networks and no service")
	}
	for _, d := range drafts {
		app.Entities = append(app.Entities, r.identify(d))
	}
	r.deriveIDs(app.Entities)
	for _, entity := range app.Entities {
		r.ids = append(r.ids, entity.ID)
	}
	for i, d := range drafts {
		r.fill(d, app.Entities[i])
	}
}

// draft sorts the keys of one service.
func (r *reader) draft(n *yaml.Node, path string) *draft {
	d := &draft{node: n, path: path, settings: map[string]setting{}}
	d.entries = r.entries(n, path, "such as {type: docker:redis:3, id: redis}")
	for i, e := range d.entries {
		switch e.key {
		case "type", "serviceType", "service_type":
			if d.typ != nil {
				r.add(e.node, e.path, "keep one of them", "the type is given twice: %s and %s (line %d)", e.key, d.typ.key, d.typ.node.Line)
				continue
			}
			d.typ = &d.entries[i]
		case "id":
			d.id = &d.entries[i]
		}
	}
	return d
}

// identify makes the entity of a service with its type, id and names.
func (r *reader) identify(d *draft) *model.Entity {
	e := &model.Entity{Kind: model.KindGroup, Position: r.doc.At(d.node)}
	switch {
	case d.typ != nil:
		if t, ok := r.plain(d.typ.value, d.typ.path); ok {
			e.Type = t
		}
	case d.node != nil && d.node.Kind == yaml.MappingNode:
		r.add(d.node, d.path, "such as type: docker:redis:3", "the service has no type")
	}
	if d.id != nil {
		if id, ok := r.plain(d.id.value, d.id.path); ok {
			e.ID = id
			e.Position = r.doc.At(d.id.node)
		}
	}
	return e
}

var notName = regexp.MustCompile(`[^a-z0-9_]+`)

// deriveIDs names the services that have no id after their image
// (spec/clocker.md §1.3.1), each by a name of its own.
func (r *reader) deriveIDs(entities []*model.Entity) {
	taken := map[string]bool{}
	for _, e := range entities {
		taken[strings.ToLower(e.ID)] = true
	}
	for _, e := range entities {
		if e.ID != "" {
			continue
		}
		base := derivedID(e.Type)
		id := base
		for i := 2; taken[id]; i++ {
			id = fmt.Sprintf("%s_%d", base, i)
		}
		taken[id] = true
		e.ID = id
	}
}

func derivedID(typ string) string {
	s := strings.TrimPrefix(strings.TrimPrefix(typ, "docker:"), "marathon:")
	s, _, _ = strings.Cut(s, "@")
	s = s[strings.LastIndexByte(s, '/')+1:]
	s, _, _ = strings.Cut(s, ":")
	s = s[strings.LastIndexByte(s, '.')+1:]
	s = strings.Trim(notName.ReplaceAllString(strings.ToLower(s), "_"), "_")
	if s == "" || len(s) > model.MaxName-8 {
		return "service"
	}
	return s
}

// fill reads the rest of a service.
func (r *reader) fill(d *draft, e *model.Entity) {
	image, docker := r.image(d, e)
	for _, x := range d.entries {
		switch x.key {
		case "type", "serviceType", "service_type", "id", "location", "locations":
		case "name":
			if !document.Null(x.value) {
				e.Name, _ = r.plain(x.value, x.path)
			}
		case "brooklyn.config", "brooklyn.flags":
			for _, c := range r.entries(x.value, x.path, "such as {env: {KEY: value}}") {
				r.setting(d, c, docker)
			}
		default:
			r.setting(d, x, docker)
		}
	}
	e.Location = r.locations(d.entries, d.path)
	for _, key := range inherited {
		if set, ok := r.config[key]; ok && d.settings[key].node == nil {
			d.settings[key] = set
		}
	}
	s := &model.Service{
		Image:    image,
		Replicas: 1,
		Networks: []model.Attachment{{Network: model.DefaultNetwork}},
		// A blueprint has no key for it; the fleet's task is to keep its
		// services running, also over a reboot of their host.
		Restart: model.Restart{Policy: "unless-stopped"},
	}
	r.ports(d, s)
	r.links(d, s)
	r.env(d, s)
	r.volumes(d, s)
	r.hostLost(d, s)
	r.attach(d, s)
	r.placement(d, s)
	r.resources(d, s)
	if image != "" {
		e.Kind, e.Service = model.KindService, s
	}
}

// setting files one configuration key under its full name.
func (r *reader) setting(d *draft, e entry, docker bool) {
	k, known := serviceKeys[e.key]
	switch {
	case !known && docker:
		r.add(e.node, e.path, model.DidYouMean(e.key, append(keysOf(serviceKeys), structural...), "the keys of a docker: service are "+strings.Join(builtKeys, ", ")),
			"unknown key %q", e.key)
	case !known:
		// What such a key means is for a type that is refused already; an
		// expression in it can be wrong all the same.
		r.value(e.value, e.path, 0)
	case k.remedy != "":
		r.notBuilt(e.node, e.path, e.key, k.remedy)
		r.value(e.value, e.path, 0)
	default:
		if other, twice := d.settings[k.full]; twice {
			r.add(e.node, e.path, "keep one of them", "%q says the same as %q on line %d", e.key, other.key, other.node.Line)
			return
		}
		d.settings[k.full] = setting{e, k.full}
	}
}

// image reads the type of a service. docker tells whether it is meant to be
// an image, even a wrong one.
func (r *reader) image(d *draft, e *model.Entity) (image string, docker bool) {
	if e.Type == "" {
		return "", false
	}
	ref, docker := strings.CutPrefix(e.Type, "docker:")
	if !docker {
		r.refuseType(d.typ.value, d.typ.path, e.Type, d.entries)
		return "", false
	}
	image, err := model.ParseImage(ref)
	if err != nil {
		r.add(d.typ.value, d.typ.path, "such as docker:redis:3, docker:registry:5000/team/app:1 or docker:app@sha256:...", "%q names no image: %s", e.Type, cause(err))
		return "", true
	}
	return image, true
}

// cause is the innermost error.
func cause(err error) error {
	for {
		u, ok := err.(interface{ Unwrap() error })
		if !ok || u.Unwrap() == nil {
			return err
		}
		err = u.Unwrap()
	}
}

func keysOf[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
