package nettest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/docker/go-plugins-helpers/ipam"
	"github.com/docker/go-plugins-helpers/network"
	"github.com/google/uuid"

	"clocker.io/clocker/pkg/record"
)

// Call makes one of the engine's calls and fails the test when it is refused.
func (h *Host) Call(method string, request, reply any) {
	h.t.Helper()
	if err := h.call(method, request, reply); err != nil {
		h.t.Fatalf("%s: %s: %v", h.ID, method, err)
	}
}

// Try makes one of the engine's calls.
func (h *Host) Try(method string, request, reply any) error { return h.call(method, request, reply) }

func (h *Host) call(method string, request, reply any) error {
	var body []byte
	if request != nil {
		var err error
		if body, err = json.Marshal(request); err != nil {
			return err
		}
	}
	status, answer, err := h.Post(method, body)
	if err != nil {
		return err
	}
	var failure struct{ Err, Error string }
	if err := json.Unmarshal(answer, &failure); err != nil {
		return fmt.Errorf("read reply %q: %w", answer, err)
	}
	if failure.Err != failure.Error || status != http.StatusOK && failure.Err == "" {
		return fmt.Errorf("status %d, reply %s", status, answer)
	}
	if failure.Err != "" {
		return errors.New(failure.Err)
	}
	if reply == nil {
		return nil
	}
	return json.Unmarshal(answer, reply)
}

// Post sends a raw body.
func (h *Host) Post(method string, body []byte) (status int, answer []byte, err error) {
	c := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", h.Socket())
		},
	}}
	r, err := c.Post("http://plugin/"+method, "application/json", bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	defer r.Body.Close()
	answer, err = io.ReadAll(r.Body)
	return r.StatusCode, answer, err
}

// Network is a Docker network on one host.
type Network struct {
	Host *Host
	// ID is the engine's id, Pool and Pool6 are the IPAM driver's. Those of a
	// family that the network does not have are empty.
	ID, Pool, Pool6 string
	Subnet, Subnet6 string
}

// CreateNetwork does what an engine does for `docker network create -d clocker
// --ipam-driver clocker`, with the network of the fleet n, or by hand if n is
// nil.
func (h *Host) CreateNetwork(n *record.Network, options map[string]string) *Network {
	h.t.Helper()
	net, err := h.TryCreateNetwork(n, options)
	if err != nil {
		h.t.Fatalf("%s: create network: %v", h.ID, err)
	}
	return net
}

// TryCreateNetwork is [Host.CreateNetwork], and returns what the plugin
// refused.
func (h *Host) TryCreateNetwork(n *record.Network, options map[string]string) (*Network, error) {
	if n == nil {
		return h.TryCreateNetworkByHand(options, true, false)
	}
	return h.createNetwork(n, options, n.Subnet != "", n.Subnet6 != "")
}

// TryCreateNetworkByHand does what an engine does for `docker network create`
// with --ipv4 and --ipv6.
func (h *Host) TryCreateNetworkByHand(options map[string]string, v4, v6 bool) (*Network, error) {
	return h.createNetwork(&record.Network{}, options, v4, v6)
}

func (h *Host) createNetwork(n *record.Network, options map[string]string, v4, v6 bool) (*Network, error) {
	generic := map[string]string{}
	for k, v := range options {
		generic[k] = v
	}
	all := map[string]any{"com.docker.network.generic": generic, "com.docker.network.enable_ipv4": v4, "com.docker.network.enable_ipv6": v6}
	if n.ID != "" {
		generic["clocker.network"] = n.ID
	}
	if n.Internal {
		all["com.docker.network.internal"] = true
	}
	if err := h.call("NetworkDriver.GwAllocCheck", map[string]any{"Options": all}, nil); err != nil {
		return nil, err
	}
	net := &Network{Host: h, ID: newID()}
	request := network.CreateNetworkRequest{NetworkID: net.ID, Options: all}
	var err error
	if v4 {
		request.IPv4Data, err = h.requestPool(n.ID, n.Subnet, false, &net.Pool, &net.Subnet)
	}
	if v6 && err == nil {
		request.IPv6Data, err = h.requestPool(n.ID, n.Subnet6, true, &net.Pool6, &net.Subnet6)
	}
	if err == nil {
		err = h.call("NetworkDriver.CreateNetwork", request, nil)
	}
	if err != nil {
		return nil, errors.Join(err, net.releasePools())
	}
	return net, nil
}

// requestPool asks the IPAM driver for one family's subnet and gateway.
func (h *Host) requestPool(id, subnet string, v6 bool, pool, got *string) ([]*network.IPAMData, error) {
	request := ipam.RequestPoolRequest{AddressSpace: "clocker-local", Pool: subnet, V6: v6, Options: map[string]string{}}
	if id != "" {
		request.Options["clocker.network"] = id
	}
	var p ipam.RequestPoolResponse
	if err := h.call("IpamDriver.RequestPool", request, &p); err != nil {
		return nil, err
	}
	*pool, *got = p.PoolID, p.Pool
	var gateway ipam.RequestAddressResponse
	err := h.call("IpamDriver.RequestAddress", ipam.RequestAddressRequest{
		PoolID: p.PoolID, Options: map[string]string{"RequestAddressType": "com.docker.network.gateway"},
	}, &gateway)
	return []*network.IPAMData{{AddressSpace: "clocker-local", Pool: p.Pool, Gateway: gateway.Address}}, err
}

func (n *Network) releasePools() error {
	var errs []error
	for _, pool := range []string{n.Pool, n.Pool6} {
		if pool != "" {
			errs = append(errs, n.Host.call("IpamDriver.ReleasePool", ipam.ReleasePoolRequest{PoolID: pool}, nil))
		}
	}
	return errors.Join(errs...)
}

// Delete does what an engine does for `docker network rm`.
func (n *Network) Delete() {
	n.Host.t.Helper()
	check(n.Host.t, n.releasePools())
	n.Host.Call("NetworkDriver.DeleteNetwork", network.DeleteNetworkRequest{NetworkID: n.ID}, nil)
}

// newID is an id as engines make them: 64 hexadecimal digits.
func newID() string {
	return strings.ReplaceAll(uuid.NewString()+uuid.NewString(), "-", "")
}
