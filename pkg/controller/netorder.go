package controller

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
)

func compareAddresses(a, b netip.Addr) int { return a.Compare(b) }

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func isPrefix(s string) bool {
	_, err := netip.ParsePrefix(s)
	return err == nil
}
