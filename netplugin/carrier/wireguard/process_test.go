package wireguard

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/netplugin/carrier"
	"clocker.io/clocker/netplugin/nettest"
	"clocker.io/clocker/netplugin/underlay"
	"clocker.io/clocker/pkg/finding"
)

// asCarrier in the environment makes the test binary be a host's carrier: its
// sockets and threads must all be in the host's namespace. It does what lines
// on its standard input say.
const asCarrier = "CLOCKER_TEST_AS_CARRIER"

type settings struct {
	Host    string
	Address netip.Addr
	Dir     string
}

type question struct {
	Peers      []carrier.Peer
	Check, Fix bool
}

type answer struct {
	Key   string
	Hops  []carrier.Hop
	Found []finding.Finding
	Error string
}

func TestMain(m *testing.M) {
	if s := os.Getenv(asCarrier); s != "" {
		if err := serve(s); err != nil {
			fmt.Fprintln(os.Stderr, "carrier ended:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func serve(text string) error {
	var s settings
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return err
	}
	h, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	c, err := New(Config{
		Host: s.Host, Address: s.Address, Handle: h, Sysctl: "/proc/sys/net", Dir: s.Dir, Now: time.Now, Log: slog.Default(),
	})
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(answer{Key: c.PublicKey()}); err != nil {
		return err
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var q question
		if err := json.Unmarshal(in.Bytes(), &q); err != nil {
			return err
		}
		a := answer{Key: c.PublicKey()}
		if q.Check {
			a.Found, err = c.Check(q.Fix)
		} else if err = c.Sync(q.Peers); err == nil {
			for _, p := range q.Peers {
				hop, failed := c.Hop(p)
				if failed != nil {
					err = failed
				}
				a.Hops = append(a.Hops, hop)
			}
		}
		if err != nil {
			a.Error = err.Error()
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
	return nil
}

// end is a host with the carrier as a process of its own, and with addresses
// as of a container.
type end struct {
	*nettest.Host
	t      *testing.T
	v4, v6 string
	key    string
	p      *exec.Cmd
	in     *json.Encoder
	out    *json.Decoder
}

func newEnd(t *testing.T, h *nettest.Host) *end {
	t.Helper()
	e := &end{Host: h, t: t, v4: "10.208.0." + h.ID[4:], v6: "fd00:208::" + h.ID[4:]}
	h.Set("ipv4/ip_forward", "1")
	h.Set("ipv6/conf/all/forwarding", "1")
	h.Run("ip", "addr", "add", e.v4+"/32", "dev", "lo", "scope", "host")
	h.Run("ip", "addr", "add", e.v6+"/128", "dev", "lo")
	e.start()
	t.Cleanup(e.kill)
	return e
}

func (e *end) start() {
	e.t.Helper()
	s, err := json.Marshal(settings{e.ID, netip.MustParseAddr(e.Address), e.Dir})
	assert.NilError(e.t, err)
	e.p = exec.Command("/proc/self/exe")
	e.p.Env, e.p.Stderr = append(os.Environ(), asCarrier+"="+string(s)), os.Stderr
	in, err := e.p.StdinPipe()
	assert.NilError(e.t, err)
	out, err := e.p.StdoutPipe()
	assert.NilError(e.t, err)
	e.Do(func() { assert.NilError(e.t, e.p.Start()) })
	e.in, e.out = json.NewEncoder(in), json.NewDecoder(out)
	var a answer
	assert.NilError(e.t, e.out.Decode(&a))
	e.key = a.Key
}

func (e *end) kill() {
	_ = e.p.Process.Kill() // it may have ended by itself
	_ = e.p.Wait()
}

func (e *end) ask(q question) answer {
	e.t.Helper()
	assert.NilError(e.t, e.in.Encode(q))
	var a answer
	assert.NilError(e.t, e.out.Decode(&a))
	return a
}

func (e *end) peer() carrier.Peer {
	e.t.Helper()
	u, err := underlay.Look(e.Handle, netip.MustParseAddr(e.Address), func(int, string) bool { return false })
	assert.NilError(e.t, err)
	u.Host, u.WireGuard = e.ID, e.key
	p, err := carrier.PeerOf(u, []netip.Prefix{netip.MustParsePrefix(e.v4 + "/32"), netip.MustParsePrefix(e.v6 + "/128")})
	assert.NilError(e.t, err)
	return p
}

// sync makes the others reachable, with routes to their containers.
func (e *end) sync(others ...*end) {
	e.t.Helper()
	var peers []carrier.Peer
	for _, o := range others {
		peers = append(peers, o.peer())
	}
	a := e.ask(question{Peers: peers})
	assert.Equal(e.t, a.Error, "")
	for i, hop := range a.Hops {
		for _, dst := range peers[i].Prefixes {
			r := &netlink.Route{LinkIndex: hop.Link, MTU: hop.MTU, Scope: netlink.SCOPE_LINK}
			var err error
			r.Dst, err = netlink.ParseIPNet(dst.String())
			assert.NilError(e.t, err)
			assert.NilError(e.t, e.Handle.RouteReplace(r))
		}
	}
}

func meet(a, b *end) {
	a.t.Helper()
	a.sync(b)
	b.sync(a)
}
