package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"clocker.io/clocker/pkg/dns"
	"clocker.io/clocker/pkg/record"
)

// nameCache keeps on the host's disk what names the fleet has, so that an
// agent which starts answers at once, and also while etcd is away.
type nameCache struct {
	identity
	dir   string
	index *dns.Index
	log   *slog.Logger
}

// cachedNames is the file's content.
type cachedNames struct {
	Fleet    string                       `json:"fleet"`
	Names    map[string]record.NameRecord `json:"names"`
	Networks map[string]record.Network    `json:"networks"`
	Services map[string]record.Service    `json:"services"`
}

// namesEvery is how often the file is written, at most.
const namesEvery = 3 * time.Second

func (c *nameCache) file() string { return filepath.Join(c.dir, "agent", "names.json") }

// restore gives the index what an earlier run has kept, if there is such.
func (c *nameCache) restore() {
	b, err := os.ReadFile(c.file())
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	var kept cachedNames
	if err == nil {
		err = json.Unmarshal(b, &kept)
	}
	if err != nil {
		c.log.Warn("going on without the names of the last run", "error", err)
		return
	}
	if kept.Fleet == c.Fleet {
		c.index.Restore(dns.Records{Names: kept.Names, Networks: kept.Networks, Services: kept.Services})
	}
}

// run keeps the file until ctx ends.
func (c *nameCache) run(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-c.index.Ready():
	}
	last := 0
	for {
		r, changes := c.index.Records()
		if changes != last {
			if err := c.save(r); err != nil {
				c.log.Warn("names are not kept", "error", err)
			} else {
				last = changes
			}
		}
		if !pause(ctx, namesEvery) {
			return
		}
	}
}

// save replaces the file as a whole. It is not synced: one that is lost or torn
// costs a moment after a crash of the machine, when etcd is asked anyway.
func (c *nameCache) save(r dns.Records) error {
	b, err := json.Marshal(cachedNames{Fleet: c.Fleet, Names: r.Names, Networks: r.Networks, Services: r.Services})
	if err == nil {
		err = os.MkdirAll(filepath.Dir(c.file()), 0o700)
	}
	temp := c.file() + ".new"
	if err == nil {
		err = os.WriteFile(temp, b, 0o600)
	}
	if err == nil {
		err = os.Rename(temp, c.file())
	}
	if err != nil {
		return fmt.Errorf("keep names: %w", err)
	}
	return nil
}
