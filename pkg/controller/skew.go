package controller

import (
	"context"
	"errors"
	"fmt"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// errNewerSchema means that the state is kept in a layout that this program
// does not know.
var errNewerSchema = errors.New("upgrade this controller (docker clocker upgrade)")

// checkSchema refuses a fleet that a newer program has written.
func checkSchema(fleet string, stored int) error {
	if stored <= record.SchemaVersion {
		return nil
	}
	return fmt.Errorf("fleet %s is kept in layout %d by a newer docker-clocker; this one knows %d: %w", fleet, stored, record.SchemaVersion, errNewerSchema)
}

// readSchema returns the layout that the state is kept in.
func (c *Controller) readSchema(ctx context.Context) (store.Item[schema], error) {
	it, err := store.Get[schema](ctx, c.store, c.store.Keys.Schema())
	if err != nil {
		return it, err
	}
	return it, checkSchema(c.fleet, it.Value.Version)
}

// mayRaise reports whether the layout may be raised to what this program
// knows: only once every controller that is known runs and knows it, so that a
// rolling upgrade can be turned back until its last step.
func mayRaise(stored, own int, known []string, running map[string]record.ControllerLease) bool {
	if stored >= own {
		return false
	}
	for _, name := range known {
		if l, up := running[name]; !up || l.Schema < own {
			return false
		}
	}
	return true
}

// raiseSchema writes the number of this program's layout when it may.
func (c *Controller) raiseSchema(ctx context.Context) error {
	stored := c.schema.Load()
	if stored >= record.SchemaVersion {
		return nil
	}
	specs, running := c.fellows()
	var known []string
	for name := range specs {
		known = append(known, name)
	}
	if !mayRaise(int(stored), record.SchemaVersion, known, running) {
		return nil
	}
	it, err := c.readSchema(ctx)
	if err != nil {
		return err
	}
	fence, _ := c.lead.get()
	if fence == nil {
		return nil
	}
	if _, err := c.store.Txn(fence...).Unchanged(it.Key, it.Revision).Put(it.Key, schema{record.SchemaVersion}).Commit(ctx); err != nil {
		return err
	}
	c.schema.Store(record.SchemaVersion)
	c.log.Info("layout of the state raised", "layout", record.SchemaVersion)
	return nil
}
