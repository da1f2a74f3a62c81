package controller

import (
	"strings"
	"testing"

	"clocker.io/clocker/pkg/record"

	"gotest.tools/v3/assert"
)

func TestRemovalKeepsAMajority(t *testing.T) {
	up := func(name string) fellow { return fellow{Name: name, Up: true, Voter: true, Healthy: true} }
	down := func(name string) fellow { return fellow{Name: name, Voter: true} }
	learner := func(name string) fellow { return fellow{Name: name, Learner: true} }
	for name, tc := range map[string]struct {
		all   []fellow
		who   string
		force bool
		want  string
	}{
		"one of three":                    {[]fellow{up("a"), up("b"), up("c")}, "b", false, ""},
		"one of two":                      {[]fellow{up("a"), up("b")}, "a", false, ""},
		"the last":                        {[]fellow{up("a")}, "a", true, "last controller"},
		"the last voter":                  {[]fellow{up("a"), learner("b")}, "a", true, "last controller"},
		"a dead one":                      {[]fellow{up("a"), up("b"), down("c")}, "c", false, "--force"},
		"a dead one, forced":              {[]fellow{up("a"), up("b"), down("c")}, "c", true, ""},
		"a live one beside a dead one":    {[]fellow{up("a"), up("b"), down("c")}, "a", true, "no majority: start c, or remove it first (docker clocker controller rm --force c)"},
		"a learner that never started":    {[]fellow{up("a"), learner("b")}, "b", false, ""},
		"one that is gone already":        {[]fellow{up("a")}, "z", false, ""},
		"of an etcd of the user's own":    {[]fellow{{Name: "a", Up: true}, {Name: "b", Up: true}}, "b", false, ""},
		"five with two down, a third one": {[]fellow{up("a"), up("b"), up("c"), down("d"), down("e")}, "a", true, "no majority"},
	} {
		t.Run(name, func(t *testing.T) {
			err := checkRemoval(tc.all, tc.who, tc.force)
			if tc.want == "" {
				assert.NilError(t, err)
			} else {
				assert.ErrorContains(t, err, tc.want)
			}
		})
	}
}

func TestAdditionWaitsForTheOneBefore(t *testing.T) {
	up := fellow{Name: "a", Up: true, Voter: true, Healthy: true}
	assert.NilError(t, checkAddition([]fellow{up}, "b"))
	assert.NilError(t, checkAddition([]fellow{up, {Name: "b", Learner: true}}, "b"), "the same again")
	assert.ErrorContains(t, checkAddition([]fellow{up, {Name: "b", Learner: true}}, "c"), "controller rm b")
	assert.ErrorContains(t, checkAddition([]fellow{up, {Name: "b", Voter: true}}, "c"), "b does not answer")
	var five []fellow
	for _, n := range strings.Split("abcde", "") {
		five = append(five, fellow{Name: n, Up: true, Voter: true, Healthy: true})
	}
	assert.ErrorContains(t, checkAddition(five, "f"), "5 controllers")
	assert.Equal(t, sizeWarning(3), "")
	assert.ErrorContains(t, errString(sizeWarning(2)), "2 controllers bear the loss of 0, no more than 1")
	assert.ErrorContains(t, errString(sizeWarning(4)), "4 controllers bear the loss of 1, no more than 3")
}

type errString string

func (e errString) Error() string { return string(e) }

func TestLayoutIsRaisedWhenEveryControllerKnowsIt(t *testing.T) {
	lease := func(schema int) record.ControllerLease { return record.ControllerLease{Schema: schema} }
	known := []string{"a", "b"}
	assert.Assert(t, mayRaise(1, 2, known, map[string]record.ControllerLease{"a": lease(2), "b": lease(2)}))
	assert.Assert(t, !mayRaise(1, 2, known, map[string]record.ControllerLease{"a": lease(2), "b": lease(1)}))
	assert.Assert(t, !mayRaise(1, 2, known, map[string]record.ControllerLease{"a": lease(2)}), "one that is down may be old")
	assert.Assert(t, !mayRaise(2, 2, known, map[string]record.ControllerLease{"a": lease(2), "b": lease(2)}))
	assert.NilError(t, checkSchema("f", record.SchemaVersion))
	assert.ErrorIs(t, checkSchema("f", record.SchemaVersion+1), errNewerSchema)
}
