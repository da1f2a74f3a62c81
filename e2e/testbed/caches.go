package testbed

import (
	"context"
	"os"

	"golang.org/x/sync/errgroup"
)

// caches are what testbeds are made from: directories that are only read.
type caches struct {
	tree   string // the hosts' root
	bare   string // the root of hosts without an engine; empty unless wanted
	images string // the registry's content
	imageTrees
}

// imageTrees are the root trees that images are distilled from.
type imageTrees struct {
	tools string // the hub's root too
	shell string // has busybox
}

func (t *imageTrees) make(ctx context.Context, log func(string, ...any)) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		t.tools, err = toolsTree.make(ctx, log)
		return err
	})
	g.Go(func() (err error) {
		t.shell, err = shellTree.make(ctx, log)
		return err
	})
	return g.Wait()
}

// Prepare builds the caches for the engines given ("28", "20") and makes
// nothing else, so that a later Up takes seconds.
func Prepare(ctx context.Context, log func(string, ...any), engines ...string) error {
	if os.Geteuid() != 0 {
		return errNotRoot
	}
	for _, e := range engines {
		if _, err := prepare(ctx, log, e, false); err != nil {
			return err
		}
	}
	return nil
}

func prepare(ctx context.Context, log func(string, ...any), engine string, bare bool) (*caches, error) {
	if err := ensurePrograms(ctx, log); err != nil {
		return nil, err
	}
	c := new(caches)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		c.tree, err = hostTrees[engine].make(ctx, log)
		return err
	})
	if bare {
		g.Go(func() (err error) {
			c.bare, err = bareTree.make(ctx, log)
			return err
		})
	}
	g.Go(func() (err error) {
		c.images, err = makeImages(ctx, log, &c.imageTrees)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return c, nil
}
