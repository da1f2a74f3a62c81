package formatter

import (
	"strings"
	"time"

	"github.com/docker/go-units"
)

// age is the time from t to now in words: "3 minutes".
func age(now, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strings.ToLower(units.HumanDuration(max(0, now.Sub(t))))
}

// ago is age with "ago" behind, or a dash when t is not known.
func ago(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return age(now, t) + " ago"
}
