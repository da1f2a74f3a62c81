package controller

import (
	"errors"
	"fmt"
	"strings"
)

// fellow is a controller as decisions about the set of controllers need it.
type fellow struct {
	Name string
	// Up means that its lease is there.
	Up bool
	// Voter, Learner and Healthy are of its member of etcd; all false for one
	// that has none.
	Voter, Learner, Healthy bool
}

// What speaks against a removal; the text is for the user.
var (
	errLastController = errors.New("it is the last controller of the fleet: docker clocker fleet rm removes the fleet, docker clocker controller add adds another controller first")
	errSilent         = errors.New("it does not answer: start it, or give it up with --force")
)

// checkRemoval says why a controller cannot be removed; nil when it can. A
// majority of the members that stay must be up, force or not: without it
// nothing can be written at all, the removal itself included.
func checkRemoval(all []fellow, name string, force bool) error {
	var target *fellow
	voters, healthy := 0, 0
	var down []string
	for i, f := range all {
		if f.Name == name {
			target = &all[i]
			continue
		}
		if !f.Voter {
			continue
		}
		voters++
		if f.Healthy {
			healthy++
		} else {
			down = append(down, f.Name)
		}
	}
	switch {
	case target == nil:
		return nil // what is left of one that is gone
	case len(all) == 1, target.Voter && voters == 0:
		return errLastController
	case target.Voter && healthy < voters/2+1:
		return fmt.Errorf("only %d of the %d members of etcd that stay would be up, which is no majority: start %s, or remove it first (docker clocker controller rm --force %s)",
			healthy, voters, strings.Join(down, " and "), down[0])
	case !target.Up && !target.Learner && !force:
		return errSilent
	}
	return nil
}

// checkAddition says why no controller called name can be added now; nil when
// one can. The same controller again is no addition.
func checkAddition(all []fellow, name string) error {
	for _, f := range all {
		if f.Name == name {
			return nil
		}
	}
	var down []string
	for _, f := range all {
		switch {
		case f.Learner:
			return fmt.Errorf("controller %s is being added and does not vote yet: wait for it, or finish or undo that first (docker clocker controller add again, or controller rm %s)", f.Name, f.Name)
		case f.Voter && !f.Healthy:
			down = append(down, f.Name)
		}
	}
	if len(down) > 0 {
		return fmt.Errorf("the member of etcd of controller %s does not answer: start it, or remove it first (docker clocker controller rm --force %s)", strings.Join(down, " and "), down[0])
	}
	if len(all) >= maxControllers {
		return fmt.Errorf("the fleet has %d controllers: more make it slower, not safer", len(all))
	}
	return nil
}

// maxControllers is how many controllers a fleet can have.
const maxControllers = 5

// sizeWarning is what a user should know of a fleet of n controllers; empty
// when that number is a good one.
func sizeWarning(n int) string {
	if n%2 == 1 {
		return ""
	}
	return fmt.Sprintf("%d controllers bear the loss of %d, no more than %d do: add one more, or remove one", n, (n-1)/2, n-1)
}
