package driver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"clocker.io/clocker/netplugin/policy"
	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/pkg/record"
)

// networkState is an engine's network: which network of the fleet it is.
// Engines tell it once, at CreateNetwork, and never again.
type networkState struct {
	// ID is the engine's id.
	ID      string         `json:"id"`
	Network record.Network `json:"network"`
	// Foreign says that the engine's own IPAM gives the addresses.
	Foreign bool `json:"foreign,omitempty"`
	// Removed says that the engine has deleted it and only etcd has not been
	// told yet.
	Removed bool `json:"removed,omitempty"`
}

// endpointState is an endpoint that the engine has made.
type endpointState struct {
	segment.Endpoint
	// EngineNetwork is the engine's id of its network.
	EngineNetwork string `json:"engineNetwork"`
	// Sandbox is the container's sandbox, while it has joined.
	Sandbox string `json:"sandbox,omitempty"`
	// Left says that the container has left it.
	Left bool `json:"left,omitempty"`
	// DNS says that the route to the host's DNS goes by this endpoint: a
	// container has only one.
	DNS bool `json:"dns,omitempty"`
	// First6 says that it is the first of its container with IPv6: the ways
	// that a container has only one of go by it.
	First6 bool `json:"first6,omitempty"`
	// Wanted are the ports to publish, as far as the engine has told.
	Wanted []binding `json:"wanted,omitempty"`
	// Published are the ports that are.
	Published []policy.Port `json:"published,omitempty"`
}

// files keeps the state of networks and endpoints: one small file each, so
// that a change costs as much as the change.
type files struct{ dir string }

// bootFile says which boot of the host the endpoints are of: none outlives it.
const bootFile = "boot"

// openFiles opens the state directory. Endpoints of an earlier boot of the
// host are dropped: their links are gone with it.
func openFiles(dir, boot string) (files, error) {
	f := files{dir}
	for _, d := range []string{f.networks(), f.endpoints(), f.machines()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return f, fmt.Errorf("make state directory: %w", err)
		}
	}
	old, err := os.ReadFile(filepath.Join(dir, bootFile))
	if err == nil && string(old) == boot {
		return f, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f, fmt.Errorf("read state: %w", err)
	}
	if err := os.RemoveAll(f.endpoints()); err != nil {
		return f, fmt.Errorf("drop endpoints of an earlier boot: %w", err)
	}
	if err := os.Mkdir(f.endpoints(), 0o700); err != nil {
		return f, fmt.Errorf("make state directory: %w", err)
	}
	return f, write(filepath.Join(dir, bootFile), []byte(boot), true)
}

func (f files) networks() string  { return filepath.Join(f.dir, "networks") }
func (f files) endpoints() string { return filepath.Join(f.dir, "endpoints") }

// putNetwork is on disk when it returns.
func (f files) putNetwork(n networkState) error {
	return putJSON(filepath.Join(f.networks(), n.ID+".json"), n, true)
}

// putEndpoint survives the end of the process, but not of the host, which no
// endpoint survives either.
func (f files) putEndpoint(e endpointState) error {
	return putJSON(filepath.Join(f.endpoints(), e.ID+".json"), e, false)
}

func (f files) deleteNetwork(id string) error { return remove(filepath.Join(f.networks(), id+".json")) }

func (f files) deleteEndpoint(id string) error {
	return remove(filepath.Join(f.endpoints(), id+".json"))
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove state: %w", err)
	}
	return nil
}

func putJSON(path string, v any, sync bool) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return write(path, b, sync)
}

// write replaces a file as a whole.
func write(path string, b []byte, sync bool) error {
	err := func() error {
		tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
		if err != nil {
			return err
		}
		defer os.Remove(tmp.Name())
		_, err = tmp.Write(b)
		if err == nil && sync {
			err = tmp.Sync()
		}
		if err = errors.Join(err, tmp.Close()); err != nil {
			return err
		}
		if err := os.Rename(tmp.Name(), path); err != nil || !sync {
			return err
		}
		d, err := os.Open(filepath.Dir(path))
		if err != nil {
			return err
		}
		return errors.Join(d.Sync(), d.Close())
	}()
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

// load reads every record of a directory. One that cannot be read is an
// error: it is better to say so than to forget a network.
func load[T any](dir string) ([]T, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	var all []T
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if !strings.HasSuffix(e.Name(), ".json") {
			_ = os.Remove(path) // a write that a kill cut short
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read state: %w", err)
		}
		var v T
		if err := json.Unmarshal(b, &v); err != nil {
			return nil, fmt.Errorf("read state %s: %w", path, err)
		}
		all = append(all, v)
	}
	return all, nil
}

// segmentNetwork is what the segment needs of a network.
func segmentNetwork(n record.Network) (segment.Network, error) {
	sn := segment.Network{ID: n.ID, MTU: n.MTU, Carrier: n.Carrier, Kind: n.Segment, VNI: n.VNI, Broadcast: n.Options[optBroadcast] == "true"}
	var err error
	read := func(subnet, gateway string) (p netip.Prefix, a netip.Addr) {
		if subnet == "" || err != nil {
			return p, a
		}
		if p, err = netip.ParsePrefix(subnet); err == nil {
			a, err = netip.ParseAddr(gateway)
		}
		return p.Masked(), a
	}
	sn.Subnet, sn.Gateway = read(n.Subnet, n.Gateway)
	sn.Subnet6, sn.Gateway6 = read(n.Subnet6, n.Gateway6)
	if err == nil && len(sn.Subnets()) == 0 {
		err = errors.New("it has no subnet")
	}
	if err != nil {
		return segment.Network{}, fmt.Errorf("read network %s: %w", n.ID, err)
	}
	return sn, nil
}
