package driver

import (
	"context"
	"fmt"
	"time"

	"clocker.io/clocker/volplugin/backend"
)

// startTime is how long a container may take from the answer to Mount to
// having the volume. It is as long as engines wait for that answer.
const startTime = 2 * time.Minute

// unused says whether a volume may be removed; mu is held.
//
// Counts alone would keep volumes for ever: an engine that was killed never
// unmounts what its containers had. So a count is believed while the kernel
// knows of a mount, or nobody can tell, or a container may be about to start;
// past that it is of an engine that is gone. And a mount that is not counted
// keeps the volume as well.
func (d *Driver) unused(name string, v *entry, b backend.Backend) error {
	ctx, stop := context.WithTimeout(context.Background(), startTime/4)
	defer stop()
	counted := v.mounts()
	held, err := b.Holders(ctx, v.volume(name))
	age := d.cfg.Now().Sub(v.LastMount)
	switch {
	case err == nil && held > 0:
		return fmt.Errorf("it is in use: mounted %d times, and seen mounted in %d places", counted, held)
	case counted == 0:
		return nil
	case err != nil:
		d.cfg.Log.Info("counts of mounts cannot be checked", "volume", name, "error", err)
		return fmt.Errorf("it is in use: mounted %d times", counted)
	case age.Abs() < startTime:
		return fmt.Errorf("it is in use: mounted %d times; if no container has it, try again in %s",
			counted, (startTime - age.Abs()).Round(time.Second))
	}
	d.cfg.Log.Warn("counts of mounts are of an engine that is gone", "volume", name, "mounts", counted, "last", v.LastMount)
	return nil
}
