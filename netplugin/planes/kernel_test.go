package planes

import (
	"fmt"
	"regexp"
	"strings"

	"clocker.io/clocker/netplugin/nettest"
)

func contains(s, part string) bool { return strings.Contains(s, part) }

var (
	numbers = regexp.MustCompile(`packets \d+ bytes \d+|# handle \d+|@\S+|\bck[0-9a-f]{13}|([0-9a-f]{2}:){5}[0-9a-f]{2}|/128 proto kernel metric 256|expires \d+sec`)
	learnt  = regexp.MustCompile(`(?m)^.*(STALE|REACHABLE|DELAY|PROBE|FAILED|INCOMPLETE|NOARP).*\n`)
	// A host that forwards IPv6 has anycast addresses on its own links, and
	// hears more; link-local addresses take their time.
	forwards = regexp.MustCompile(`(?m)^.*(anycast|self permanent|cache|fe80::|table local proto kernel metric 0).*\n`)
)

// kernel is everything in a host's kernel that a network could leave
// something in.
func kernel(h *nettest.Host) string {
	var b strings.Builder
	for _, c := range []string{
		"ip -o -br link", "ip -o addr", "ip route show table all", "ip -6 route show table all", "ip rule", "ip neigh", "bridge fdb", "nft list ruleset",
	} {
		args := strings.Fields(c)
		text := numbers.ReplaceAllString(h.Run(args[0], args[1:]...), "")
		fmt.Fprintf(&b, "# %s\n%s", c, forwards.ReplaceAllString(learnt.ReplaceAllString(text, ""), ""))
	}
	return b.String()
}

// same compares two states line by line.
func same(want, got string) error {
	if want == got {
		return nil
	}
	left := map[string]int{}
	for _, line := range strings.Split(got, "\n") {
		left[line]++
	}
	var gone []string
	for _, line := range strings.Split(want, "\n") {
		if left[line] == 0 {
			gone = append(gone, line)
			continue
		}
		left[line]--
	}
	var more []string
	for line, n := range left {
		if n > 0 {
			more = append(more, line)
		}
	}
	return fmt.Errorf("the kernel's state differs:\nmore: %s\nmissing: %s", strings.Join(more, "\n"), strings.Join(gone, "\n"))
}
