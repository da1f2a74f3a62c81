package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"clocker.io/clocker/pkg/hostview"
	"clocker.io/clocker/pkg/store"
)

// waitForPlugin is how long a name may wait for the network plugin at most: it
// may be away, or an older one, and names must resolve all the same.
const waitForPlugin = 500 * time.Millisecond

// withoutPlugin is for how long names do not wait after a plugin that did not
// answer in time.
const withoutPlugin = 2 * time.Second

// behindPlugin hands changes of names on once the host's network plugin has
// taken them in, so that no name resolves to an address that connections do not
// reach yet. What goes is told at once.
type behindPlugin struct {
	client *http.Client
	log    *slog.Logger
	mu     sync.Mutex
	// patient is when it is waited for again after it did not answer in time;
	// guarded by mu.
	patient time.Time
}

func newBehindPlugin(stateDir string, log *slog.Logger) *behindPlugin {
	socket := filepath.Join(stateDir, hostview.Socket)
	return &behindPlugin{log: log, client: &http.Client{
		Timeout: waitForPlugin,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", socket)
			},
			DisableKeepAlives: true, // a plugin that was replaced has another socket
		},
	}}
}

// after returns f behind the plugin.
func (p *behindPlugin) after(ctx context.Context, f func(store.Change)) func(store.Change) {
	return func(c store.Change) {
		newest := int64(0)
		for _, r := range c.Puts {
			newest = max(newest, r.Revision)
		}
		if newest > 0 && p.waits() {
			if err := p.wait(ctx, newest); err != nil {
				p.log.Debug("names do not wait for the network plugin", "error", err)
				p.mu.Lock()
				p.patient = time.Now().Add(withoutPlugin)
				p.mu.Unlock()
			}
		}
		f(c)
	}
}

func (p *behindPlugin) waits() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().After(p.patient)
}

func (p *behindPlugin) wait(ctx context.Context, revision int64) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://plugin%s?revision=%d", hostview.PathApplied, revision), nil)
	if err != nil {
		return err
	}
	answer, err := p.client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close() //nolint:errcheck // it has none
	if answer.StatusCode != http.StatusNoContent {
		return fmt.Errorf("the network plugin says %s", answer.Status)
	}
	return nil
}
