package sketch

import (
	"fmt"
	"strconv"
	"strings"
)

// Dot writes a node and what belongs to it as a graph in the language of
// Graphviz.
func Dot(n Node) string {
	var b strings.Builder
	b.WriteString("graph clocker {\n  rankdir=LR;\n  node [shape=box, fontname=sans];\n")
	next := 0
	var walk func(n Node) int
	walk = func(n Node) int {
		id := next
		next++
		label := n.Kind + " " + n.Name
		if n.Kind == "rule" {
			label = n.Name
		}
		label = strings.Join(append([]string{label}, n.Facts...), "\n")
		fmt.Fprintf(&b, "  n%d [label=%s, color=%s%s];\n", id, strconv.Quote(label), dotColours[n.State], dotShapes[n.Kind])
		for _, p := range n.Parts {
			fmt.Fprintf(&b, "  n%d -- n%d;\n", id, walk(p))
		}
		return id
	}
	walk(n)
	b.WriteString("}\n")
	return b.String()
}

var dotColours = map[string]string{OK: "darkgreen", Waiting: "orange", Failed: "red"}

var dotShapes = map[string]string{"network": ", shape=ellipse", "rule": ", style=dashed", "host": ", style=rounded"}
