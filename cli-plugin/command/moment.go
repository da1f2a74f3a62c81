package command

import (
	"strconv"
	"strings"
	"time"
)

// moment reads a point in time as docker's commands do: a duration before now
// ("10m"), a time or date in RFC 3339 with or without a zone (the machine's),
// or seconds since 1970.
func moment(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		return time.Unix(0, int64(f*float64(time.Second))), nil
	}
	return time.Time{}, invalid("%q is no time: give a duration such as 10m or a time such as 2026-01-02T15:04:05Z", s)
}

// noService says that an application has no such service, and which it has.
func noService(app, service string, known []string) error {
	return notFound("%s has no service %q with a replica: it has %s", app, service, strings.Join(known, ", "))
}
