package placement

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Rule is one affinity rule (spec/clocker.md §2.4), about each replica that is
// on a host already.
type Rule struct {
	// Not turns the test round.
	Not bool
	// Verb is one of the Verb constants, Param its parameter; empty means the
	// same as that of what is being placed.
	Verb, Param string
}

// The verbs of affinity rules.
const (
	VerbType        = "TYPE"
	VerbName        = "NAME"
	VerbID          = "ID"
	VerbApplication = "APPLICATION"
	VerbPredicate   = "PREDICATE"
	VerbEmpty       = "EMPTY"
)

var verbs = []string{VerbType, VerbName, VerbID, VerbApplication, VerbPredicate, VerbEmpty}

// predicates are the tests of PREDICATE. What is assigned to a live host
// counts as up and running; only containers of others are not managed.
var predicates = []string{"managed", "running", "up"}

// ParseAffinity reads rules, parted by commas or ends of line. All that is
// wrong is in the error, rule by rule.
func ParseAffinity(text string) ([]Rule, error) {
	var rules []Rule
	var errs []error
	for _, t := range strings.FieldsFunc(text, func(c rune) bool { return c == ',' || c == '\n' }) {
		if strings.TrimSpace(t) == "" {
			continue
		}
		r, err := parseRule(t)
		if err != nil {
			errs = append(errs, fmt.Errorf("affinity rule %q %w", strings.TrimSpace(t), err))
			continue
		}
		rules = append(rules, r)
	}
	if len(rules)+len(errs) == 0 {
		return nil, errors.New("affinity rule is empty (such as NOT TYPE)")
	}
	return rules, errors.Join(errs...)
}

func parseRule(text string) (Rule, error) {
	words := strings.Fields(text)
	var r Rule
	switch strings.ToUpper(words[0]) {
	case "NOT", "DIFFERENT":
		r.Not, words = true, words[1:]
	case "SAME":
		words = words[1:]
	}
	if len(words) == 0 {
		return r, fmt.Errorf("has no verb (one of %s)", strings.Join(verbs, ", "))
	}
	if r.Verb = strings.ToUpper(words[0]); !slices.Contains(verbs, r.Verb) {
		return r, fmt.Errorf("has no verb that is known: %s (there are %s)", words[0], strings.Join(verbs, ", "))
	}
	most := 2
	if r.Verb == VerbEmpty {
		most = 1
	}
	if len(words) > most {
		return r, fmt.Errorf("goes on after its end: %s", strings.Join(words[most:], " "))
	}
	if len(words) == 2 {
		r.Param = words[1]
	}
	switch {
	case r.Param == "" && (r.Verb == VerbName || r.Verb == VerbPredicate):
		return r, fmt.Errorf("lacks what %s is about (%s TEXT)", r.Verb, r.Verb)
	case r.Verb == VerbPredicate && !slices.Contains(predicates, strings.ToLower(r.Param)):
		return r, fmt.Errorf("names a predicate that is not there: %s (there are %s; Java classes are not run)", r.Param, strings.Join(predicates, ", "))
	case r.Verb == VerbPredicate:
		r.Param = strings.ToLower(r.Param)
	}
	return r, nil
}

// String is the rule as ParseAffinity reads it.
func (r Rule) String() string {
	words := []string{r.Verb}
	if r.Not {
		words = []string{"NOT", r.Verb}
	}
	if r.Param != "" {
		words = append(words, r.Param)
	}
	return strings.Join(words, " ")
}

// accepts reports whether a replica of kind on a host is one that the placed
// one may share the host with.
func (r Rule) accepts(on, placed *kind) bool {
	is := false
	switch r.Verb {
	case VerbType:
		want := r.Param
		if want == "" {
			want = placed.typeName()
		}
		full := on.typeName()
		is = strings.EqualFold(full, want) || r.Param != "" && strings.EqualFold(full[strings.LastIndexAny(full, "./:")+1:], want)
	case VerbName:
		is = strings.Contains(strings.ToLower(on.title()), strings.ToLower(r.Param))
	case VerbID:
		is = on.app == placed.app && (on.service == r.Param || r.Param == "" && on.service == placed.service) ||
			r.Param != "" && on.app+"/"+on.service == r.Param
	case VerbApplication:
		is = on.app == r.Param || r.Param == "" && on.app == placed.app
	default: // PREDICATE and EMPTY: of what the fleet manages, each test holds
		return !r.Not || r.Verb == VerbEmpty
	}
	return is != r.Not
}

// kind is what the replicas of one service have in common.
type kind struct {
	app, service, parent, typ, name string
}

// typeName is the type of a replica; one without has its service as its type.
func (k *kind) typeName() string {
	if k.typ != "" {
		return k.typ
	}
	return k.app + "/" + k.service
}

func (k *kind) title() string {
	if k.name != "" {
		return k.name
	}
	return k.service
}
