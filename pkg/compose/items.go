package compose

import (
	"regexp"
	"slices"
	"strconv"

	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"

	"clocker.io/clocker/pkg/source/document"
)

// Items that are taken out of a list leave a gap in the user's numbering that
// the loader does not see, and a range of ports becomes several ports. What
// follows keeps the two numberings apart.

// removeItem takes an item out of a list.
func (l *load) removeItem(list *yaml.Node, i int) {
	numbers := make([]int, len(list.Content))
	for j := range numbers {
		numbers[j] = l.number(list, j)
	}
	l.numbers[list] = slices.Delete(numbers, i, i+1)
	list.Content = slices.Concat(list.Content[:i], list.Content[i+1:])
}

// number is the user's number of the item that is now at i.
func (l *load) number(list *yaml.Node, i int) int {
	if n, ok := l.numbers[list]; ok && i < len(n) {
		return n[i]
	}
	return i
}

// places are the paths, in the user's numbering, of the loaded entries of a
// list of ports or volumes; nil when the entries come from several lists.
func (l *load) places(path string, loaded int) []string {
	list := l.lists[path]
	if list == nil {
		return nil
	}
	var out []string
	for i, c := range list.Content {
		for range l.expands(document.Resolve(c)) {
			out = append(out, document.Index(path, l.number(list, i)))
		}
	}
	if len(out) != loaded {
		return nil
	}
	return out
}

// expands is how many entries the loader makes of one item.
func (l *load) expands(item *yaml.Node) int {
	if item.Kind != yaml.ScalarNode {
		return 1
	}
	text, err := l.substitute(item.Value)
	if err != nil {
		return 1
	}
	if ports, err := types.ParsePortConfig(text); err == nil && len(ports) > 0 {
		return len(ports)
	}
	return 1
}

// place is the path of one loaded entry, or that of the list.
func place(places []string, list string, i int) string {
	if i < len(places) {
		return places[i]
	}
	return list
}

var listed = regexp.MustCompile(`^(services\..*\.(?:ports|volumes))\[(\d+)\]$`)

// renumber gives a path of the model the user's numbering.
func (l *load) renumber(path string) string {
	m := listed.FindStringSubmatch(path)
	if m == nil {
		return path
	}
	i, err := strconv.Atoi(m[2])
	if err != nil {
		return path
	}
	return place(l.loaded[m[1]], m[1], i)
}
