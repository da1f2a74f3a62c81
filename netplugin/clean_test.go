package main

import (
	"fmt"
	"regexp"
	"strings"

	"clocker.io/clocker/netplugin/cleanup"
	"clocker.io/clocker/netplugin/nettest"
)

// clean is what is done when a host leaves its fleet.
func clean(h *nettest.Host) error {
	if err := cleanup.Kernel(); err != nil {
		return err
	}
	return cleanup.Socket(h.Socket())
}

// linkLocal are the kernel's own entries about the link's address, which come
// and go with duplicate address detection and with being a router.
var linkLocal = regexp.MustCompile(`(?m)^(local|anycast) fe80\S* dev eth0 .*\n`)

var numbers = regexp.MustCompile(`packets \d+ bytes \d+|# handle \d+|\bck[0-9a-f]{13}`)

// kernel is everything in a host's kernel that the plugin could have left
// something in.
func kernel(h *nettest.Host) string {
	var b strings.Builder
	for _, c := range [][]string{
		{"ip", "-o", "-br", "link"}, {"ip", "-o", "-4", "addr"}, {"ip", "-o", "-6", "addr", "show", "dev", "lo"}, {"ip", "route", "show", "table", "all"}, {"ip", "rule"},
		{"ip", "neigh", "show", "nud", "permanent"}, {"nft", "list", "ruleset"},
	} {
		text := numbers.ReplaceAllString(linkLocal.ReplaceAllString(h.Run(c[0], c[1:]...), ""), "")
		if c[1] == "-o" && c[2] == "-br" {
			// Hardware addresses and interface numbers differ.
			text = regexp.MustCompile(`@\S+|([0-9a-f]{2}:){5}[0-9a-f]{2}`).ReplaceAllString(text, "")
		}
		fmt.Fprintf(&b, "# %s\n%s", strings.Join(c, " "), text)
	}
	return b.String()
}

func same(want, got string) error {
	if want == got {
		return nil
	}
	return fmt.Errorf("the kernel's state differs:\n%s\nwant:\n%s", got, want)
}
