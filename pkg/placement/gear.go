package placement

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"clocker.io/clocker/pkg/model"
)

// gear is what a host has of devices and generic resources, and what of it is
// in use.
type gear struct {
	devices, generic         map[string]int64
	usedDevices, usedGeneric map[string]int64
}

// deviceKind is what a device request asks for: a kind, of a driver when it
// names one.
func deviceKind(d model.DeviceRequest) (driver, kind string) {
	kind = "gpu"
	if len(d.Capabilities) > 0 && !slices.Contains(d.Capabilities, kind) {
		kind = d.Capabilities[0]
	}
	return d.Driver, kind
}

// deviceKey is a kind as [Host.Devices] has it.
func deviceKey(driver, kind string) string {
	if driver == "" {
		return kind
	}
	return driver + "/" + kind
}

// everyDevice reports whether a request is for all devices, as the engine
// takes one that says neither how many nor which.
func everyDevice(d model.DeviceRequest) bool { return len(d.IDs) == 0 && d.Count <= 0 }

// kindOf splits a key of devices; id is empty for a kind as a whole.
func kindOf(key string) (driver, kind, id string) {
	parts := strings.SplitN(key, "/", 3)
	switch len(parts) {
	case 1:
		return "", parts[0], ""
	case 2:
		return parts[0], parts[1], ""
	}
	return parts[0], parts[1], parts[2]
}

// total is how many devices of a kind the host has.
func total(has map[string]int64, driver, kind string) int64 {
	if n, ok := has[deviceKey(driver, kind)]; ok || driver != "" {
		return n
	}
	sum := int64(0)
	for key, n := range has {
		if _, k, id := kindOf(key); k == kind && id == "" {
			sum += n
		}
	}
	return sum
}

// free is how many devices of a kind are free. Which driver's were given to
// who named none is not known, so they count against every driver.
func (g *gear) free(driver, kind string) int64 {
	n := total(g.devices, driver, kind)
	for key, used := range g.usedDevices {
		if d, k, id := kindOf(key); k == kind && id == "" && (driver == "" || d == "" || d == driver) {
			n -= used
		}
	}
	return n
}

// lacks says what of the devices and generic resources asked is not free; ""
// when all is.
func (g *gear) lacks(r *model.Resources) (reason, group string, free int64) {
	if g == nil {
		g = &gear{}
	}
	for i, d := range r.Devices {
		if reason, group, free = g.lacksDevice(r.Devices[:i], d); reason != "" {
			return reason, group, free
		}
	}
	asked := map[string]int64{}
	for _, a := range r.Generic {
		asked[a.Kind] += a.Value
		if n := g.generic[a.Kind] - g.usedGeneric[a.Kind]; asked[a.Kind] > n {
			group = fmt.Sprintf("not enough %s: %d asked", a.Kind, asked[a.Kind])
			return fmt.Sprintf("%s, %d free", group, max(0, n)), group, max(0, n)
		}
	}
	return "", "", 0
}

func (g *gear) lacksDevice(before []model.DeviceRequest, d model.DeviceRequest) (reason, group string, left int64) {
	driver, kind := deviceKind(d)
	key, all := deviceKey(driver, kind), total(g.devices, driver, kind)
	free := g.free(driver, kind)
	for _, b := range before { // those of the same request come first
		if bd, bk := deviceKind(b); bk == kind && (bd == driver || bd == "" || driver == "") {
			free -= int64(max(b.Count, len(b.IDs)))
		}
	}
	want := int64(max(d.Count, len(d.IDs)))
	switch {
	case all == 0:
		reason = "it has no device " + key
		return reason, reason, 0
	case everyDevice(d) && free < all:
		return fmt.Sprintf("all devices %s are asked, %d of %d are in use", key, all-free, all), "all devices " + key + " are asked, some are in use", 0
	case want > free:
		group = fmt.Sprintf("not enough devices %s: %d asked", key, want)
		return fmt.Sprintf("%s, %d free", group, max(0, free)), group, max(0, free)
	}
	for _, id := range d.IDs {
		if g.names(driver, kind, "") && !g.names(driver, kind, id) {
			return "it has no device " + key + " " + id, "", 0
		}
		for used := range g.usedDevices {
			if _, k, uid := kindOf(used); k == kind && uid == id {
				return "device " + key + " " + id + " is in use", "", 0
			}
		}
	}
	return "", "", 0
}

// names reports whether the host names a device of a kind: the one with an id,
// or any when id is empty. A host may leave its devices without names.
func (g *gear) names(driver, kind, id string) bool {
	for key, n := range g.devices {
		d, k, i := kindOf(key)
		if n > 0 && i != "" && k == kind && (driver == "" || d == driver) && (id == "" || i == id) {
			return true
		}
	}
	return false
}

// Taken is what a replica keeps of a host's devices and generic resources, as
// [Task] has it. A request for all devices keeps all that the host has.
func Taken(h Host, r model.Resources) (devices, generic map[string]int64) {
	for _, d := range r.Devices {
		driver, kind := deviceKind(d)
		key, n := deviceKey(driver, kind), int64(max(d.Count, len(d.IDs)))
		if everyDevice(d) {
			n = total(h.Devices, driver, kind)
		}
		if devices == nil {
			devices = map[string]int64{}
		}
		devices[key] += n
		for _, id := range d.IDs {
			if driver == "" {
				devices["any/"+kind+"/"+id]++
			} else {
				devices[key+"/"+id]++
			}
		}
	}
	for _, a := range r.Generic {
		if generic == nil {
			generic = map[string]int64{}
		}
		generic[a.Kind] += a.Value
	}
	return devices, generic
}

// use adds what a task keeps, or takes it away again.
func (g *gear) use(devices, generic map[string]int64, sign int64) {
	add := func(to *map[string]int64, what map[string]int64) {
		if *to == nil {
			*to = map[string]int64{}
		}
		for k, n := range what {
			if (*to)[k] += sign * n; (*to)[k] == 0 {
				delete(*to, k)
			}
		}
	}
	add(&g.usedDevices, devices)
	add(&g.usedGeneric, generic)
}

func newGear(h *Host) *gear {
	if len(h.Devices)+len(h.Generic) == 0 {
		return nil
	}
	return &gear{devices: maps.Clone(h.Devices), generic: maps.Clone(h.Generic)}
}
