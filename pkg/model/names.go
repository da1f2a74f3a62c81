package model

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/distribution/reference"
)

// MaxName is the longest name of an application, an entity or a replica: one
// label of a DNS name (RFC 1035 §2.3.4), which is also what Linux allows for
// a host name.
const MaxName = 63

var (
	applicationName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*$`)
	entityID        = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)
	hostName        = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9_.-]*[a-zA-Z0-9])?$`)
	notSlug         = regexp.MustCompile(`[^a-z0-9_]+`)
)

// ValidName reports whether s can be the name of an application.
func ValidName(s string) bool { return len(s) <= MaxName && applicationName.MatchString(s) }

// ValidID reports whether s can be the plan id of an entity.
func ValidID(s string) bool { return len(s) <= MaxName && entityID.MatchString(s) }

// Slug makes an application name or an id out of any text: lower case, with
// one "-" for each run of other characters. It is empty when nothing is left.
func Slug(s string) string {
	s = strings.Trim(notSlug.ReplaceAllString(strings.ToLower(s), "-"), "-_")
	if len(s) > MaxName {
		s = strings.TrimRight(s[:MaxName], "-_")
	}
	return s
}

// ParseImage normalises an image reference as Docker does: the domain and the
// tag "latest" are filled in where they are missing, a digest is kept.
func ParseImage(s string) (string, error) {
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return "", fmt.Errorf("parse image %q: %w", s, err)
	}
	return reference.TagNameOnly(named).String(), nil
}

// Nearest returns the known word that a mistyped one most likely stands for,
// or "" when none is near: about a third of its letters may differ.
func Nearest(word string, known []string) string {
	best, distance := "", (len(word)+1)/3+1
	low := strings.ToLower(word)
	for _, k := range known {
		d := levenshtein.ComputeDistance(low, strings.ToLower(k))
		if d < distance || d == distance && best != "" && k < best {
			best, distance = k, d
		}
	}
	return best
}

// DidYouMean is the remedy for a mistyped word: `did you mean "x"?`, or the
// fallback when no known word is near.
func DidYouMean(word string, known []string, fallback string) string {
	if n := Nearest(word, known); n != "" {
		return fmt.Sprintf("did you mean %q?", n)
	}
	return fallback
}
