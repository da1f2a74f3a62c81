package fleet

import (
	"context"
	"errors"
	"testing"

	"gotest.tools/v3/assert"
)

func TestUndoGoesBackwardsEvenAfterAnInterruption(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var order []string
	var u undo
	for _, what := range []string{"first", "second", "third"} {
		u.add(what, func(ctx context.Context) error {
			assert.NilError(t, ctx.Err())
			order = append(order, what)
			if what == "second" {
				return errors.New("it is stuck")
			}
			return nil
		})
	}
	cause := errors.New("the plan failed")
	err := u.run(ctx, cause, func(Progress) {}, "h1")
	assert.ErrorIs(t, err, cause)
	assert.ErrorContains(t, err, "take back second: it is stuck")
	assert.DeepEqual(t, order, []string{"third", "second", "first"})
	assert.NilError(t, u.run(ctx, nil, nil, ""), "what was taken back is not taken back again")
}
