package dsl

import (
	"fmt"
	"maps"
	"slices"

	"clocker.io/clocker/pkg/model"
)

// function is what the language knows of one function.
type function struct {
	// min and max bound the number of arguments; a max of -1 is no bound.
	min, max int
	// chained functions may follow a dot.
	chained bool
	// only functions stand behind a dot after this one word, and nowhere
	// else; empty means anywhere.
	only string
}

var functions = map[string]function{
	"entity":                             {min: 1, max: 1, chained: true},
	"component":                          {min: 1, max: 2, chained: true},
	"self":                               {chained: true},
	"parent":                             {chained: true},
	"root":                               {chained: true},
	"scopeRoot":                          {chained: true},
	"child":                              {min: 1, max: 1, chained: true},
	"sibling":                            {min: 1, max: 1, chained: true},
	"descendant":                         {min: 1, max: 1, chained: true},
	"ancestor":                           {min: 1, max: 1, chained: true},
	"application":                        {min: 1, max: 1, chained: true},
	"member":                             {min: 1, max: 1, chained: true},
	"config":                             {min: 1, max: 1, chained: true},
	"attributeWhenReady":                 {min: 1, max: 2, chained: true},
	"attributeWhenReadyAllowingOnFire":   {min: 1, max: 1, chained: true},
	"sensor":                             {min: 1, max: 2, chained: true},
	"entityId":                           {chained: true},
	"formatString":                       {min: 1, max: -1},
	"urlEncode":                          {min: 1, max: 1},
	"regexReplacement":                   {min: 3, max: 3},
	"literal":                            {min: 1, max: 1},
	"external":                           {min: 2, max: 2},
	"entitySpec":                         {min: 1, max: 1},
	"object":                             {min: 1, max: 1},
	namespace:                            {},
	namespace + "." + "regexReplacement": {min: 2, max: 2, chained: true, only: namespace},
}

// namespace is the word before function values, as in
// function.regexReplacement(pattern, replacement).
const namespace = "function"

// newer are functions of Brooklyn versions after the one Clocker ran on.
var newer = map[string]bool{"location": true, "template": true, "workflow": true, "reference": true, "enricher": true}

var scopes = []string{"global", "child", "parent", "sibling", "descendant", "ancestor", "root", "scopeRoot", "this"}

// names are the functions that a user may have meant.
func names() []string {
	var out []string
	for _, n := range slices.Sorted(maps.Keys(functions)) {
		if n != namespace && functions[n].only == "" {
			out = append(out, n)
		}
	}
	return out
}

// call checks one call and makes the expression of it.
func call(target *model.Expr, name string, args []model.Value, offset int) (*model.Expr, *Error) {
	key := name
	if target != nil && target.Target == nil && target.Func == namespace {
		key = namespace + "." + name
	}
	f, ok := functions[key]
	switch {
	case !ok && newer[name]:
		return nil, &Error{offset, fmt.Sprintf("function %q belongs to later versions of Brooklyn and is not supported", name), ""}
	case !ok:
		return nil, &Error{offset, fmt.Sprintf("unknown function %q", name), model.DidYouMean(name, names(), "such as component, entity, formatString, literal")}
	case target != nil && !f.chained:
		return nil, &Error{offset, fmt.Sprintf("%s cannot follow a dot", name), "write " + Prefix + name + "(...)"}
	case name == namespace && len(args) > 0:
		return nil, &Error{offset, namespace + " takes no arguments", "write function.regexReplacement(pattern, replacement)"}
	case len(args) < f.min, f.max >= 0 && len(args) > f.max:
		return nil, &Error{offset, fmt.Sprintf("%s takes %s, not %d", name, count(f), len(args)), ""}
	}
	if name == "component" && len(args) == 2 {
		if s, literal := args[0].Literal(); literal && !slices.Contains(scopes, s) {
			return nil, &Error{offset, fmt.Sprintf("component has no scope %q", s), model.DidYouMean(s, scopes, "")}
		}
	}
	return &model.Expr{Target: target, Func: name, Args: args}, nil
}

func count(f function) string {
	plural := func(n int) string {
		if n == 1 {
			return "1 argument"
		}
		return fmt.Sprintf("%d arguments", n)
	}
	switch {
	case f.max < 0:
		return "at least " + plural(f.min)
	case f.min == f.max:
		return plural(f.min)
	}
	return fmt.Sprintf("%d to %s", f.min, plural(f.max))
}

// Call makes the expression of the map form {$brooklyn:name: args}. The name
// comes without the prefix; it may be a chain, such as
// component("x").config, whose last call takes the arguments.
func Call(name string, args []model.Value) (*model.Expr, error) {
	p := &parser{text: name, mapForm: true, mapArgs: args}
	e, err := p.expression()
	if err != nil {
		return nil, err
	}
	if !p.mapUsed {
		return nil, &Error{len(name), "the last function has arguments twice: in parentheses and after the colon", "keep one of them"}
	}
	return e, nil
}
