package histories

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/docker/go-plugins-helpers/ipam"
	"github.com/docker/go-plugins-helpers/network"

	"clocker.io/clocker/netplugin/nettest"
)

// history is what the engines saw.
type history struct {
	start time.Time
	mu    sync.Mutex
	all   []porcupine.Operation // guarded by mu
	// counts are how often each outcome was; guarded by mu.
	counts map[string]int
}

func newHistory() *history { return &history{start: time.Now(), counts: map[string]int{}} }

func (h *history) now() int64 { return int64(time.Since(h.start)) }

// add notes an operation that began at from and ends now, or never.
func (h *history) add(client int, from int64, o operation, a answer) {
	to := h.now()
	if a.unknown {
		to = forever
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, porcupine.Operation{ClientId: client, Input: o, Output: a, Call: from, Return: to})
	h.counts[fmt.Sprintf("%s %s", map[bool]string{true: "take", false: "give back"}[o.take],
		map[answer]string{{}: "done", {refused: true}: "refused", {unknown: true}: "unanswered"}[a])]++
}

// client is one caller of a host's engine.
type client struct {
	id      int
	host    *nettest.Host
	net     *atomic.Pointer[nettest.Network]
	history *history
	random  *rand.Rand
	http    *http.Client
	// names are those of containers that no host runs at the moment; nil when
	// the engine does not tell names.
	names *names
	// held are its containers, by address.
	held map[string]container
	// serial numbers operations whose answer is not known: each is a client
	// of its own to the checker, as it never ended.
	serial *ids
}

// container is one that has an address.
type container struct{ endpoint, name string }

// names are the names of containers that are stopped: whichever host starts
// one takes it from here.
type names struct {
	mu   sync.Mutex
	free []string // guarded by mu
}

// take takes a name away, or "" when there is none.
func (n *names) take(r *rand.Rand) string {
	if n == nil {
		return ""
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.free) == 0 {
		return ""
	}
	i := r.IntN(len(n.free))
	name := n.free[i]
	n.free = slices.Delete(n.free, i, i+1)
	return name
}

func (n *names) put(name string) {
	if n == nil || name == "" {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.free = append(n.free, name)
}

type ids struct {
	mu   sync.Mutex
	last int
}

func (i *ids) next() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.last++
	return i.last
}

// patience is how long a client waits for one answer.
const patience = 3 * time.Second

func newHTTP(h *nettest.Host) *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		MaxIdleConnsPerHost: 1,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", h.Socket())
		},
	}}
}

// call makes a call. known is false when no answer came, so that it may or may
// not have been carried out.
func (c *client) call(method string, request, reply any) (known bool, err error) {
	body, err := json.Marshal(request)
	if err != nil {
		return true, err
	}
	r, err := c.http.Post("http://plugin/"+method, "application/json", strings.NewReader(string(body)))
	if err != nil {
		// Nobody listening is an answer too: it was not carried out.
		return strings.Contains(err.Error(), "connect: "), err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return false, err
	}
	var failure struct{ Err string }
	if err := json.Unmarshal(b, &failure); err != nil {
		return false, err
	}
	if failure.Err != "" {
		return true, fmt.Errorf("%s", failure.Err)
	}
	if reply == nil {
		return true, nil
	}
	return true, json.Unmarshal(b, reply)
}

// step does one thing: take an address, or give one back.
func (c *client) step(want int) {
	if len(c.held) > 0 && (len(c.held) >= want || c.random.IntN(2) == 0) {
		for a := range c.held {
			c.give(a)
			return
		}
	}
	named := ""
	if c.random.IntN(8) == 0 {
		named = c.anyAddress()
	}
	c.take(named)
}

// anyAddress is one of the subnet's, whoever has it.
func (c *client) anyAddress() string {
	p := netip.MustParsePrefix(c.net.Load().Subnet)
	b := p.Addr().As4()
	n := 2 + c.random.IntN(1<<(32-p.Bits())-3)
	b[2] += byte(n >> 8)
	b[3] += byte(n)
	return netip.AddrFrom4(b).String()
}

// take asks for an address and makes an endpoint with it, as for a container:
// it is held once that has been done.
func (c *client) take(named string) (address string, ok bool) {
	n, name := c.net.Load(), c.names.take(c.random)
	options := map[string]string{}
	if name != "" {
		options["com.docker.network.endpoint.name"] = name
	}
	from := c.history.now()
	var a ipam.RequestAddressResponse
	known, err := c.call("IpamDriver.RequestAddress", ipam.RequestAddressRequest{PoolID: n.Pool, Address: named, Options: options}, &a)
	if err != nil {
		if named != "" {
			c.note(from, operation{true, c.who(), named}, answer{refused: known, unknown: !known})
		}
		c.names.put(name)
		return "", false
	}
	address, _, _ = strings.Cut(a.Address, "/")
	o := operation{true, c.who(), address}
	endpoint := fmt.Sprintf("%013x%051d", c.random.Uint64()>>12, 0)
	known, err = c.call("NetworkDriver.CreateEndpoint", network.CreateEndpointRequest{
		NetworkID: n.ID, EndpointID: endpoint, Interface: &network.EndpointInterface{Address: a.Address},
	}, nil)
	switch {
	case err == nil:
		c.held[address] = container{endpoint, name}
		c.note(from, o, answer{})
	case known:
		// The engine gives the address back and deletes no endpoint.
		c.note(from, o, answer{refused: true})
		_, _ = c.call("IpamDriver.ReleaseAddress", ipam.ReleaseAddressRequest{PoolID: n.Pool, Address: address}, nil)
		c.names.put(name)
	default:
		// Made or not: the engine tries to delete it until it knows.
		c.held[address] = container{endpoint, name}
		c.note(from, o, answer{unknown: true})
	}
	return address, err == nil
}

// give ends a container, in the engine's order, again and again until it is
// answered: the plugin is started again by the test.
func (c *client) give(address string) {
	from := c.history.now()
	n, gone := c.net.Load(), c.held[address]
	delete(c.held, address)
	for _, call := range []struct {
		method  string
		request any
	}{
		{"NetworkDriver.DeleteEndpoint", network.DeleteEndpointRequest{NetworkID: n.ID, EndpointID: gone.endpoint}},
		{"IpamDriver.ReleaseAddress", ipam.ReleaseAddressRequest{PoolID: n.Pool, Address: address}},
	} {
		for {
			known, err := c.call(call.method, call.request, nil)
			if err == nil {
				break
			}
			if known {
				// Nobody is there, or it says that it cannot: wait for it.
				<-time.After(20 * time.Millisecond)
			}
		}
	}
	c.note(from, operation{false, c.who(), address}, answer{})
	c.names.put(gone.name)
}

// who is the caller as the history knows it.
func (c *client) who() string { return fmt.Sprintf("%s/%d", c.host.ID, c.id) }

func (c *client) note(from int64, o operation, a answer) {
	id := c.id
	if a.unknown {
		id = c.serial.next()
	}
	c.history.add(id, from, o, a)
}
