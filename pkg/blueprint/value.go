package blueprint

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"clocker.io/clocker/pkg/blueprint/dsl"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/source/document"
)

// constant reads a text or an expression that depends on nothing.
func (r *reader) constant(n *yaml.Node, path string) (string, bool) {
	if document.Null(n) {
		r.add(n, path, `write "" for an empty text, or leave the key out`, "the value is missing")
		return "", false
	}
	v, ok := r.value(n, path, 0)
	if !ok {
		return "", false
	}
	if text, literal := v.Literal(); literal {
		return text, true
	}
	if v.Expr.Func == "" {
		r.add(n, path, "", "expected a text, found %s", document.KindName(n))
		return "", false
	}
	text, err := dsl.Eval(v.Expr)
	var nc *dsl.NotConstantError
	switch {
	case err == nil:
		return text, true
	case errors.As(err, &nc):
		r.add(n, path, waitRemedy(nc.Func), "%s is not supported here yet: %s", nc.Func, v)
	default:
		r.add(n, path, "", "%s: %s", v, err)
	}
	return "", false
}

func waitRemedy(function string) string {
	switch function {
	case "attributeWhenReady", "attributeWhenReadyAllowingOnFire", "sensor", "entityId":
		return "link the service: its name resolves, and a link puts its addresses into variables such as REDIS_PORT_6379_TCP_ADDR"
	case "external":
		return "secrets come later: write the value, or mount a file of the host"
	}
	return "write the value itself"
}

// value reads any value: text, expression in either form, list or map.
func (r *reader) value(n *yaml.Node, path string, depth int) (model.Value, bool) {
	n = document.Resolve(n)
	if !r.visit(n, path) {
		return model.Value{}, false
	}
	if depth > maxDepth {
		r.add(n, path, "", "values are nested more than %d deep", maxDepth)
		return model.Value{}, false
	}
	switch {
	case n == nil:
		return model.Value{}, true
	case n.Kind == yaml.SequenceNode:
		args, ok := r.list(n, path, depth)
		return model.Value{Expr: &model.Expr{Args: args}}, ok
	case n.Kind == yaml.MappingNode:
		return r.mapValue(n, path, depth)
	case dsl.Is(n.Value):
		e, err := dsl.Parse(n.Value)
		if err != nil {
			r.expressionProblem(n, path, 0, err)
			return model.Value{}, false
		}
		r.checkReferences(n, path, e)
		return model.Value{Expr: e}, true
	}
	return model.Text(n.Value), true
}

// visit counts a node and says once when there are too many.
func (r *reader) visit(n *yaml.Node, path string) bool {
	r.visited++
	if r.visited == maxVisits {
		r.add(n, path, "use fewer anchors and aliases", "the aliases of this file stand for more than %d values", maxVisits)
	}
	return r.visited < maxVisits
}

func (r *reader) list(n *yaml.Node, path string, depth int) ([]model.Value, bool) {
	var out []model.Value
	all := true
	for i, c := range n.Content {
		v, ok := r.value(c, document.Index(path, i), depth+1)
		out = append(out, v)
		all = all && ok
	}
	return out, all
}

// mapValue reads the map form of an expression, or a map of values.
func (r *reader) mapValue(n *yaml.Node, path string, depth int) (model.Value, bool) {
	entries := r.mapping(n, path, 0)
	for _, e := range entries {
		if !dsl.Is(e.key) {
			continue
		}
		if len(entries) > 1 {
			r.add(e.node, path, "put the expression into a map of its own, or quote the key in literal(...)",
				"a map with the expression %q has other keys too", e.key)
			return model.Value{}, false
		}
		return r.mapForm(e, depth)
	}
	fields := map[string]model.Value{}
	all := true
	for _, e := range entries {
		v, ok := r.value(e.value, e.path, depth+1)
		fields[e.key] = v
		all = all && ok
	}
	return model.Value{Expr: &model.Expr{Fields: fields}}, all
}

func (r *reader) mapForm(e entry, depth int) (model.Value, bool) {
	name := strings.TrimPrefix(strings.TrimSpace(e.key), dsl.Prefix)
	var args []model.Value
	all := true
	switch {
	case document.Null(e.value):
	case e.value.Kind == yaml.SequenceNode:
		args, all = r.list(e.value, e.path, depth)
	case name == "literal" && e.value.Kind == yaml.ScalarNode:
		args = []model.Value{model.Text(e.value.Value)}
	default:
		v, ok := r.value(e.value, e.path, depth+1)
		args, all = []model.Value{v}, ok
		if name == "entitySpec" {
			r.specType(e.value, e.path)
		}
	}
	if !all {
		return model.Value{}, false
	}
	x, err := dsl.Call(name, args)
	if err != nil {
		r.expressionProblem(e.node, e.path, len(dsl.Prefix), err)
		return model.Value{}, false
	}
	for c := x; c != nil; c = c.Target { // the arguments were checked as they were read
		r.checkReference(e.node, e.path, c)
	}
	return model.Value{Expr: x}, true
}

// expressionProblem says what is wrong with an expression, at the very column
// where the scalar stands in the file as it is. The parser did not see the
// first skipped bytes of the scalar.
func (r *reader) expressionProblem(n *yaml.Node, path string, skipped int, err error) {
	var e *dsl.Error
	if !errors.As(err, &e) {
		r.add(n, path, "", "%s", err)
		return
	}
	p := model.Problem{Position: r.doc.At(n), Path: path, Text: e.Text, Remedy: e.Remedy}
	text := n.Value
	if i := n.Line - 1; i >= 0 && i < len(r.doc.Lines) {
		line := []rune(r.doc.Lines[i])
		start := n.Column - 1
		if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
			start++
		}
		if start >= 0 && start <= len(line) && strings.HasPrefix(string(line[start:]), text) {
			offset := min(e.Offset, len(text))
			offset = min(offset+skipped, len(text))
			p.Position.Column = start + 1 + utf8.RuneCountInString(text[:offset])
		} else {
			p.Text = fmt.Sprintf("character %d of the expression: %s", e.Offset+1, e.Text)
		}
	}
	r.problems = append(r.problems, p)
}

// checkReferences finds component("x") and entity("x") of no service anywhere
// in an expression.
func (r *reader) checkReferences(n *yaml.Node, path string, e *model.Expr) {
	if e == nil {
		return
	}
	r.checkReferences(n, path, e.Target)
	for _, a := range e.Args {
		r.checkReferences(n, path, a.Expr)
	}
	r.checkReference(n, path, e)
}

func (r *reader) checkReference(n *yaml.Node, path string, e *model.Expr) {
	if e.Func != "component" && e.Func != "entity" || len(e.Args) != 1 {
		return
	}
	id, literal := e.Args[0].Literal()
	if literal && !slices.Contains(r.ids, id) {
		r.add(n, path, model.DidYouMean(id, r.ids, "give a service this id"), "%s names no service of this blueprint", e)
	}
}
