package blueprint

import (
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"go.yaml.in/yaml/v4"

	"clocker.io/clocker/pkg/blueprint/dsl"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/source/document"
	"clocker.io/clocker/pkg/strategy"
)

// placement reads where replicas may run (spec/clocker.md §2).
func (r *reader) placement(d *draft, s *model.Service) {
	p := &s.Placement
	if set, ok := d.settings[keyStrategies]; ok && !document.Null(set.value) {
		p.Position = r.doc.At(set.node)
		for i, n := range items(set.value) {
			at := itemPath(set.value, set.path, i)
			if st, ok := r.strategy(n, at); ok {
				st.Position = r.doc.At(n)
				p.Strategies = append(p.Strategies, st)
			}
		}
	}
	for _, key := range constraintKeys {
		if set, ok := d.settings[key.full]; ok && !document.Null(set.value) {
			r.constraint(p, set, key.strategy)
		}
	}
	if set, ok := d.settings[keyAffinity]; ok && !document.Null(set.value) {
		if p.Position.Line == 0 {
			p.Position = r.doc.At(set.node)
		}
		p.Affinity = r.rules(set.value, set.path)
	}
	if set, ok := d.settings[keyProvisioning]; ok && !document.Null(set.value) {
		r.provisioning(p, set)
	}
}

// constraintKeys are options of strategies that may stand by themselves: the
// strategy is added unless the chain has it.
var constraintKeys = []struct{ full, strategy string }{
	{"docker.constraint.hostname", strategy.Hostname},
	{"docker.constraint.labels", strategy.Label},
	{"docker.constraint.exclusive", strategy.Group},
	{"docker.container.cluster.maxSize", strategy.MaxContainers},
	{"docker.container.cluster.maxCpu", strategy.MaxCPU},
}

func (r *reader) constraint(p *model.Placement, set setting, name string) {
	s, problems := strategy.New(name, strategy.Options{set.full: r.texts(set.entry)})
	for _, problem := range problems {
		r.add(set.value, set.path, problem.Remedy, "%s", problem.Text)
	}
	if len(problems) > 0 {
		return
	}
	s.Position = r.doc.At(set.node)
	found := false
	for i := range p.Strategies {
		have := &p.Strategies[i]
		if have.Name != name {
			continue
		}
		found = true
		switch name {
		case strategy.Hostname:
			have.Hostname = s.Hostname
		case strategy.Label:
			have.Labels = s.Labels
		case strategy.Group:
			have.Exclusive = s.Exclusive
		case strategy.MaxContainers:
			have.Containers = s.Containers
		case strategy.MaxCPU:
			have.CPU = s.CPU
		}
	}
	if !found {
		p.Strategies = append(p.Strategies, s)
	}
}

const strategyForms = `a name such as BreadthFirstPlacementStrategy or breadth-first, or $brooklyn:object with a type and brooklyn.config`

// strategy reads one member of a chain: its name, an object of its class, or a
// map with its name and its options.
func (r *reader) strategy(n *yaml.Node, path string) (model.Strategy, bool) {
	var none model.Strategy
	if n == nil || n.Kind != yaml.MappingNode {
		name, ok := r.plain(n, path)
		if !ok {
			return none, false
		}
		return r.newStrategy(n, path, name, nil)
	}
	entries := r.mapping(n, path, 0)
	if len(entries) == 1 && strings.TrimSpace(entries[0].key) == "$brooklyn:object" {
		n, path = entries[0].value, entries[0].path
		entries = r.entries(n, path, strategyForms)
	} else if len(entries) == 1 && entries[0].key != "type" && entries[0].key != "name" { // {max-containers: 4}
		e := entries[0]
		name, remedy, ok := strategy.Name(e.key)
		switch {
		case !ok:
			r.add(e.node, path, remedy, "unknown strategy %q", e.key)
			return none, false
		case document.Null(e.value):
			return r.newStrategy(n, path, name, nil)
		case e.value.Kind == yaml.MappingNode:
			return r.newStrategy(n, path, name, r.mapping(e.value, e.path, 0))
		}
		return r.newStrategy(n, path, name, []entry{{key: strategy.Main(name), node: e.node, value: e.value, path: e.path}})
	}
	var name string
	var named bool
	var options []entry
	for _, e := range entries {
		switch e.key {
		case "type", "name", "objectType", "object_type":
			if text, ok := r.plain(e.value, e.path); ok {
				name, named = text, true
			}
		case "brooklyn.config", "object.fields":
			options = append(options, r.entries(e.value, e.path, "such as {docker.constraint.labels: [ssd]}")...)
		case "constructor.args", "factoryMethod.name", "factoryMethod.args":
			r.add(e.node, e.path, "write the options under brooklyn.config", "%q cannot be called here", e.key)
			return none, false
		default:
			options = append(options, e)
		}
	}
	if !named {
		r.add(n, path, "write "+strategyForms, "the strategy has no type")
		return none, false
	}
	return r.newStrategy(n, path, name, options)
}

func (r *reader) newStrategy(n *yaml.Node, path, text string, options []entry) (model.Strategy, bool) {
	name, remedy, ok := strategy.Name(text)
	if !ok {
		r.add(n, path, remedy, "unknown strategy %q", text)
		return model.Strategy{}, false
	}
	given, at := strategy.Options{}, map[string]entry{}
	for _, e := range options {
		if e.key == "" { // a value for a strategy that takes none
			r.add(e.node, path, "write its name alone", "strategy %s takes no value", name)
			return model.Strategy{}, false
		}
		if _, twice := at[e.key]; twice {
			r.add(e.node, e.path, "keep one of them", "option %q is given twice", e.key)
		}
		at[e.key] = e
		if name == strategy.Affinity && e.value != nil {
			given[e.key] = r.rules(e.value, e.path)
		} else {
			given[e.key] = r.texts(e)
		}
	}
	s, problems := strategy.New(name, given)
	for _, p := range problems {
		where, place := n, path
		if e, ok := at[p.Option]; ok {
			where, place = e.node, e.path
		}
		r.add(where, place, p.Remedy, "%s", p.Text)
	}
	return s, len(problems) == 0
}

// rules reads affinity rules: a list, or one text of several. An expression may
// name an entity by entityId(), which is its plan id here.
func (r *reader) rules(n *yaml.Node, path string) []string {
	var out []string
	for i, item := range items(n) {
		at := itemPath(n, path, i)
		v, ok := r.value(item, at, 0)
		if !ok {
			continue
		}
		v = planIDs(v)
		if text, literal := v.Literal(); literal {
			out = append(out, text)
			continue
		}
		text, err := dsl.Eval(v.Expr)
		if err != nil {
			r.add(item, at, `such as $brooklyn:formatString("NOT ID %s", component("db").entityId())`, "%s: %s", v, err)
			continue
		}
		out = append(out, text)
	}
	return strategy.SplitRules(out)
}

// planIDs puts the plan ids of entities in the place of their entityId().
func planIDs(v model.Value) model.Value {
	x := v.Expr
	if x == nil {
		return v
	}
	if t := x.Target; x.Func == "entityId" && t != nil && t.Target == nil && (t.Func == "component" || t.Func == "entity") && len(t.Args) == 1 {
		if id, literal := t.Args[0].Literal(); literal {
			return model.Text(id)
		}
	}
	with := *x
	with.Args = make([]model.Value, len(x.Args))
	for i, a := range x.Args {
		with.Args[i] = planIDs(a)
	}
	return model.Value{Expr: &with}
}

// provisioning reads what a host must have free, which is kept for the replica.
func (r *reader) provisioning(p *model.Placement, set setting) {
	known := []string{"minCores", "minRam"}
	for _, e := range r.entries(set.value, set.path, "such as {minRam: 2048, minCores: 2}") {
		if !slices.Contains(known, e.key) {
			r.add(e.node, e.path, model.DidYouMean(e.key, known, "hosts are chosen by minRam and minCores here"), "unknown key %q", e.key)
			continue
		}
		text, ok := r.constant(e.value, e.path)
		if !ok {
			continue
		}
		if e.key == "minRam" {
			n, err := strategy.MinRAM(text)
			if err != nil {
				r.add(e.value, e.path, "a number of MiB, or with a unit, such as 2048 or 2g", "%s", err)
			}
			p.MinMemory = n
			continue
		}
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || !(f >= 0 && f < 1<<16) {
			r.add(e.value, e.path, "such as 2", "%q is no number of cores", text)
			continue
		}
		p.MinCores = f
	}
}

// resources reads what each replica may use.
func (r *reader) resources(d *draft, s *model.Service) {
	number := func(key, remedy, what string, read func(string) (int64, error)) int64 {
		set, ok := d.settings[key]
		if !ok || document.Null(set.value) {
			return 0
		}
		text, ok := r.constant(set.value, set.path)
		if !ok {
			return 0
		}
		n, err := read(strings.TrimSpace(text))
		if err != nil || n <= 0 {
			r.add(set.value, set.path, remedy, "%q is no %s", text, what)
			return 0
		}
		return n
	}
	s.Resources.Limit.MemoryBytes = number(keyMemory, "a number of bytes, or with a unit, such as 256mb or 1g", "amount of memory", units.RAMInBytes)
	s.Resources.CPUShares = number(keyCPUShares, "2 to 262144; the engine's default is 1024", "number of CPU shares", func(text string) (int64, error) {
		return strconv.ParseInt(text, 10, 64)
	})
	if set, ok := d.settings[keyCPUSet]; ok && !document.Null(set.value) {
		s.Resources.CPUSet, _ = r.constant(set.value, set.path)
	}
}
