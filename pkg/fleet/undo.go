package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// undoTime is how long taking back may last, also after ^C.
const undoTime = 90 * time.Second

// undo gathers how to take back what an action has made.
type undo struct {
	steps []undoStep
}

type undoStep struct {
	what string
	back func(ctx context.Context) error
}

// add says how to take back something that was just made, or may have been.
func (u *undo) add(what string, back func(ctx context.Context) error) {
	u.steps = append(u.steps, undoStep{what, back})
}

// run takes everything back, last made first, and returns the error that made
// it necessary together with those of the way back.
func (u *undo) run(ctx context.Context, cause error, report func(Progress), subject string) error {
	if len(u.steps) == 0 {
		return cause
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	report(Progress{Subject: subject, Step: StepUndo, State: Doing, Text: "taking back what was made"})
	errs := []error{cause}
	for i := len(u.steps) - 1; i >= 0; i-- {
		if err := u.steps[i].back(ctx); err != nil {
			errs = append(errs, fmt.Errorf("take back %s: %w", u.steps[i].what, err))
		}
	}
	u.steps = nil
	if len(errs) == 1 {
		report(Progress{Subject: subject, Step: StepUndo, State: Done, Text: "nothing is left of it"})
	}
	return errors.Join(errs...)
}
