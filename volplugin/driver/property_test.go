package driver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/docker/go-plugins-helpers/volume"
	"gotest.tools/v3/assert"
	"pgregory.net/rapid"

	"clocker.io/clocker/volplugin/backend"
	"clocker.io/clocker/volplugin/backend/local"
	"clocker.io/clocker/volplugin/driver"
)

// served is a driver over a directory, answering on a unix socket.
type served struct {
	driver *driver.Driver
	disk   *local.Backend
	front  net.Listener
	client *http.Client
}

func serve(dir string) (*served, error) {
	log := slog.New(slog.DiscardHandler)
	disk, err := local.Open(dir, log)
	if err != nil {
		return nil, err
	}
	d, err := driver.Open(driver.Config{Dir: dir, Backends: []backend.Backend{disk}, Boot: "b1", Log: log})
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "s")
	// A killed process leaves its socket file behind.
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	go func() { _ = volume.NewHandler(d).Serve(l) }()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	return &served{d, disk, l, &http.Client{Transport: transport}}, nil
}

// stop leaves on the disk what a kill would leave there.
func (s *served) stop() error {
	s.client.CloseIdleConnections()
	err := errors.Join(s.front.Close(), s.driver.Close())
	s.disk.Close()
	return err
}

// call answers the error as an engine reads it, "" for none.
func (s *served) call(method string, request, answer any) (string, error) {
	b, err := json.Marshal(request)
	if err != nil {
		return "", err
	}
	r, err := s.client.Post("http://plugin/VolumeDriver."+method, "application/json", bytes.NewReader(b))
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return "", err
	}
	var failure volume.ErrorResponse
	if err := json.Unmarshal(body, &failure); err != nil {
		return "", err
	}
	if failure.Err == "" && answer != nil {
		return "", json.Unmarshal(body, answer)
	}
	return failure.Err, nil
}

// The engine's calls in any order, with restarts in between, do what counts
// kept in memory by somebody who never crashes would do.
func TestCallsInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "vol")
		assert.NilError(t, err)
		defer os.RemoveAll(dir)
		s, err := serve(dir)
		assert.NilError(t, err)
		defer func() { _ = s.stop() }()
		do := func(method string, request, answer any) string {
			text, err := s.call(method, request, answer)
			assert.NilError(t, err)
			return text
		}
		want := map[string]map[string]int{} // volume → id → mounts
		name := rapid.SampledFrom([]string{"a", "b", "c.d-e_f"})
		id := rapid.SampledFrom([]string{"1", "2", ""})
		t.Repeat(map[string]func(*rapid.T){
			"create": func(t *rapid.T) {
				n := name.Draw(t, "name")
				assert.Equal(t, do("Create", volume.CreateRequest{Name: n}, nil), "")
				if want[n] == nil {
					want[n] = map[string]int{}
				}
			},
			"mount": func(t *rapid.T) {
				n, i := name.Draw(t, "name"), id.Draw(t, "id")
				var m volume.MountResponse
				text := do("Mount", volume.MountRequest{Name: n, ID: i}, &m)
				assert.Equal(t, text == "", want[n] != nil, text)
				if want[n] != nil {
					want[n][i]++
					// What one mount writes every later one finds.
					assert.NilError(t, os.WriteFile(filepath.Join(m.Mountpoint, "name"), []byte(n), 0o600))
				}
			},
			"unmount": func(t *rapid.T) {
				n, i := name.Draw(t, "name"), id.Draw(t, "id")
				assert.Equal(t, do("Unmount", volume.UnmountRequest{Name: n, ID: i}, nil), "")
				if want[n][i] > 1 {
					want[n][i]--
				} else {
					delete(want[n], i)
				}
			},
			"remove": func(t *rapid.T) {
				n := name.Draw(t, "name")
				text := do("Remove", volume.RemoveRequest{Name: n}, nil)
				assert.Equal(t, text == "", want[n] != nil && len(want[n]) == 0, text)
				if text == "" {
					delete(want, n)
				}
			},
			"restart": func(t *rapid.T) {
				assert.NilError(t, s.stop())
				next, err := serve(dir)
				assert.NilError(t, err)
				s = next
			},
			"": func(t *rapid.T) {
				var l volume.ListResponse
				assert.Equal(t, do("List", struct{}{}, &l), "")
				var names []string
				for _, v := range l.Volumes {
					names = append(names, v.Name)
					var g volume.GetResponse
					assert.Equal(t, do("Get", volume.GetRequest{Name: v.Name}, &g), "")
					assert.Equal(t, g.Volume.Mountpoint, v.Mountpoint)
					b, err := os.ReadFile(filepath.Join(v.Mountpoint, "name"))
					assert.Assert(t, errors.Is(err, os.ErrNotExist) || string(b) == v.Name, "%s holds %q: %v", v.Name, b, err)
				}
				assert.Equal(t, len(names), len(want))
				for n := range want {
					assert.Assert(t, slices.Contains(names, n), "%s is not in %v", n, names)
				}
			},
		})
	})
}

// Ten containers start and stop at once, all with one volume: nothing is
// counted twice and nothing is forgotten.
func TestMountsAtOnce(t *testing.T) {
	s, err := serve(t.TempDir())
	assert.NilError(t, err)
	defer func() { _ = s.stop() }()
	both := func(method string, request any) {
		if text, err := s.call(method, request, nil); text != "" || err != nil {
			t.Errorf("%s: %s %v", method, text, err)
		}
	}
	both("Create", volume.CreateRequest{Name: "a"})
	var wg sync.WaitGroup
	for _, id := range "0123456789" {
		wg.Go(func() {
			for range 5 {
				both("Mount", volume.MountRequest{Name: "a", ID: string(id)})
			}
			for range 4 {
				both("Unmount", volume.UnmountRequest{Name: "a", ID: string(id)})
			}
		})
	}
	wg.Wait()
	for _, id := range "0123456789" {
		text, err := s.call("Remove", volume.RemoveRequest{Name: "a"}, nil)
		assert.NilError(t, err)
		assert.Assert(t, text != "", "removed while %c has it mounted", id)
		both("Unmount", volume.UnmountRequest{Name: "a", ID: string(id)})
	}
	both("Remove", volume.RemoveRequest{Name: "a"})
}
