package plan

import (
	"cmp"
	"fmt"
	"slices"

	"clocker.io/clocker/pkg/record"
)

// Difference is what separates a release from the assignments there are.
type Difference struct {
	// Keep are assignments that the release wants as they are.
	Keep []record.Assignment
	// Missing are replicas without an assignment.
	Missing []Missing
	// Obsolete are assignments that the release does not want.
	Obsolete []record.Assignment
}

// Missing is a replica that needs a host.
type Missing struct {
	Template
	// Replaces is the obsolete assignment of the same replica, or nil; that of
	// the one which runs on until its successor is up when the replica moves.
	Replaces *record.Assignment
	Cause    string
	// Avoid names hosts, by id, that a replica which moves must not end on.
	Avoid []string
}

type slotKey struct {
	service string
	slot    int
}

// Diff compares a release with the application's assignments. An assignment
// made for this very release wins over an older one with the same hash: it
// was made to replace it.
func Diff(templates []Template, release int, assignments []record.Assignment) Difference {
	var d Difference
	byslot := map[slotKey][]record.Assignment{}
	for _, a := range sorted(assignments) {
		k := slotKey{a.Service, a.Slot}
		byslot[k] = append(byslot[k], a)
	}
	for _, t := range templates {
		k := slotKey{t.Service, t.Slot}
		best := -1
		for i, a := range byslot[k] {
			if a.Hash == t.Hash && (best < 0 || preferred(a, byslot[k][best], release, byslot[k])) {
				best = i
			}
		}
		if best >= 0 {
			d.Keep = append(d.Keep, byslot[k][best])
			byslot[k] = append(byslot[k][:best:best], byslot[k][best+1:]...)
			continue
		}
		m := Missing{Template: t, Cause: "it does not exist"}
		if old := byslot[k]; len(old) > 0 {
			m.Replaces = &old[0]
			m.Cause = change(old[0].Container, t.Spec)
		}
		d.Missing = append(d.Missing, m)
	}
	for _, as := range byslot {
		d.Obsolete = append(d.Obsolete, as...)
	}
	d.Obsolete = sorted(d.Obsolete)
	return d
}

// preferred reports whether a is kept rather than b: what runs before what is
// to succeed it elsewhere, then what was made for the release.
func preferred(a, b record.Assignment, release int, all []record.Assignment) bool {
	if x, y := successor(a, all), successor(b, all); x != y {
		return y
	}
	return a.Release == release
}

// change says in a few words what differs.
func change(old, wanted record.ContainerSpec) string {
	switch {
	case old.Image != wanted.Image:
		return fmt.Sprintf("its image changes from %s to %s", old.Image, wanted.Image)
	case !equal(old.Command, wanted.Command) || !equal(old.Entrypoint, wanted.Entrypoint):
		return "its command changes"
	case len(old.Ports) != len(wanted.Ports):
		return "its published ports change"
	case len(old.Mounts) != len(wanted.Mounts):
		return "its mounts change"
	case len(old.Networks) != len(wanted.Networks):
		return "its networks change"
	}
	return "its configuration changes"
}

func equal(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// sorted returns assignments by service, slot, release and task. The order is
// worked out on places, since assignments are large; those in order already,
// as they mostly are, are copied as they are.
func sorted(as []record.Assignment) []record.Assignment {
	order := func(i, j int32) int {
		a, b := &as[i], &as[j]
		if c := cmp.Compare(a.Service, b.Service); c != 0 {
			return c
		}
		if c := cmp.Compare(a.Slot, b.Slot); c != 0 {
			return c
		}
		if c := cmp.Compare(a.Release, b.Release); c != 0 {
			return c
		}
		return cmp.Compare(a.Task, b.Task)
	}
	places := make([]int32, len(as))
	for i := range places {
		places[i] = int32(i)
	}
	if !slices.IsSortedFunc(places, order) {
		slices.SortFunc(places, order)
	}
	var out []record.Assignment
	if len(as) > 0 {
		out = make([]record.Assignment, len(as))
	}
	for i, place := range places {
		out[i] = as[place]
	}
	return out
}
