package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"clocker.io/clocker/pkg/model"
)

// onlineCPUs is where the kernel lists the processors that run, in a container
// too.
const onlineCPUs = "/sys/devices/system/cpu/online"

// resources reports what the engine would refuse when the container is made,
// when what it replaces is gone already: devices that are not there, and more
// processors than the host has.
func (h hostCheck) resources(r model.Resources) error {
	var errs []error
	for _, p := range r.Paths {
		if h.root == "" {
			break
		}
		if _, err := os.Stat(filepath.Join(h.root, p.Host)); errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("device %s: there is no such device on this host", p.Host))
		}
	}
	if r.Limit.NanoCPUs > 0 || r.CPUSet != "" {
		if list, err := os.ReadFile(onlineCPUs); err == nil { // without the list the engine is the first to complain
			errs = append(errs, processors(r, parseCPUs(string(list))))
		}
	}
	return errors.Join(errs...)
}

// processors compares what a container may use with the processors there are.
func processors(r model.Resources, online []int) error {
	if len(online) == 0 {
		return nil
	}
	var errs []error
	if r.Limit.NanoCPUs > int64(len(online))*1e9 {
		errs = append(errs, fmt.Errorf("a limit of %s CPUs is more than the %d of this host",
			strconv.FormatFloat(float64(r.Limit.NanoCPUs)/1e9, 'f', -1, 64), len(online)))
	}
	for _, n := range parseCPUs(r.CPUSet) {
		if !slices.Contains(online, n) {
			errs = append(errs, fmt.Errorf("cpuset %s: this host has no CPU %d", r.CPUSet, n))
			break
		}
	}
	return errors.Join(errs...)
}

// mostCPUs bounds a list: the kernel knows no more.
const mostCPUs = 8192

// parseCPUs reads a list as the kernel writes it: "0-2,4". What is no number is
// left out.
func parseCPUs(list string) []int {
	var out []int
	for _, part := range strings.Split(strings.TrimSpace(list), ",") {
		from, to, ranged := strings.Cut(part, "-")
		if !ranged {
			to = from
		}
		a, errA := strconv.Atoi(from)
		b, errB := strconv.Atoi(to)
		if errA != nil || errB != nil {
			continue
		}
		for n := a; n <= b && len(out) < mostCPUs; n++ {
			out = append(out, n)
		}
	}
	return out
}
