package wireguard

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/moby/sys/atomicwriter"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// heardFile holds where hosts were last heard of that are not where they say:
// behind something that translates addresses. After a restart they are found
// there at once, instead of when they next begin by themselves.
const heardFile = "wireguard-heard.json"

const (
	// listenEvery is how often the places are looked at.
	listenEvery = 30 * time.Second
	// silence is after how long without a proof a host does not answer: two
	// hosts prove who they are to each other every two minutes
	// (WireGuard's paper §6.1).
	silence = 3 * time.Minute
)

// heard is where hosts were heard of, by id.
type heard map[string]netip.AddrPort

// elsewhere are the places of hosts that are heard of elsewhere than they say.
func elsewhere(want map[wgtypes.Key]remote, seen map[wgtypes.Key]status, now time.Time) heard {
	h := heard{}
	for k, r := range want {
		s := seen[k]
		if s.endpoint.IsValid() && s.endpoint != r.endpoint && now.Sub(s.handshake) < silence {
			h[r.host] = s.endpoint
		}
	}
	return h
}

// lost are changes that look for hosts where they say that they are, when they
// are not heard of any more where they were last.
func lost(want map[wgtypes.Key]remote, seen map[wgtypes.Key]status, now time.Time) []change {
	var all []change
	for _, k := range sorted(want) {
		if s := seen[k]; s.endpoint != want[k].endpoint && now.Sub(s.handshake) >= silence {
			all = append(all, change{key: k, endpoint: want[k].endpoint})
		}
	}
	return all
}

// listen keeps note of the places; callers hold mu.
func (d *device) listen() error {
	now := d.Now()
	if now.Sub(d.lastHeard) < listenEvery {
		return nil
	}
	seen, err := d.engine.status()
	if err != nil {
		return err
	}
	d.lastHeard = now
	if err := d.engine.apply(lost(d.have, seen, now)); err != nil {
		return fmt.Errorf("look for hosts: %w", err)
	}
	return d.remember(elsewhere(d.have, seen, now))
}

func (d *device) remember(h heard) error {
	was, err := d.remembered()
	if err == nil && maps.Equal(was, h) {
		return nil
	}
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if err := atomicwriter.WriteFile(filepath.Join(d.Dir, heardFile), b, 0o600); err != nil {
		return fmt.Errorf("keep places of hosts: %w", err)
	}
	return nil
}

func (d *device) remembered() (heard, error) {
	h := heard{}
	b, err := os.ReadFile(filepath.Join(d.Dir, heardFile))
	if errors.Is(err, fs.ErrNotExist) {
		return h, nil
	}
	if err != nil {
		return h, err
	}
	err = json.Unmarshal(b, &h)
	return h, err
}

// recall tells the engine, which knows nothing yet, of hosts where they were
// last heard of. Those that are not there any more begin by themselves, or are
// looked for where they say.
func (d *device) recall(want map[wgtypes.Key]remote) {
	h, err := d.remembered()
	if err != nil {
		d.Log.Warn("places of hosts not read", "error", err)
	}
	first := maps.Clone(want)
	for k, r := range want {
		if place, ok := h[r.host]; ok {
			r.endpoint = place
			first[k] = r
		}
	}
	if err := d.tell(changes(nil, first)); err != nil {
		d.Log.Warn("hosts not told to the device, trying again", "error", err)
		return
	}
	// The places count as those that hosts say they are at, so that they stay.
	d.have = maps.Clone(want)
	d.lastHeard = d.Now()
}
