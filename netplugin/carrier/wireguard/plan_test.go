package wireguard

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
	"gotest.tools/v3/assert"
	"pgregory.net/rapid"

	"clocker.io/clocker/netplugin/carrier"
)

func keyOf(b byte) wgtypes.Key { return wgtypes.Key{0: b} }

func peerOf(b byte, address string, prefixes ...string) carrier.Peer {
	p := carrier.Peer{Host: fmt.Sprint("host", b), Address: netip.MustParseAddr(address), Key: keyOf(b).String()}
	for _, x := range prefixes {
		p.Prefixes = append(p.Prefixes, netip.MustParsePrefix(x))
	}
	return p
}

func TestRemotes(t *testing.T) {
	got := remotes([]carrier.Peer{
		peerOf(1, "10.0.0.1", "10.1.0.0/26"), peerOf(1, "10.0.0.1", "10.1.0.64/26", "10.1.0.0/26"), {Host: "mute", Address: netip.MustParseAddr("10.0.0.9")},
	})
	assert.Equal(t, len(got), 1)
	r := got[keyOf(1)]
	assert.Equal(t, r.endpoint.String(), "10.0.0.1:7484")
	assert.Equal(t, fmt.Sprint(r.allowed), "[10.0.0.1/32 10.1.0.0/26 10.1.0.64/26]")
}

func TestText(t *testing.T) {
	have := remotes([]carrier.Peer{peerOf(1, "10.0.0.1", "10.1.0.0/26"), peerOf(2, "10.0.0.2", "10.1.0.64/26")})
	want := remotes([]carrier.Peer{peerOf(1, "10.0.0.7", "10.1.0.64/26"), peerOf(3, "2001:db8::3")})
	all := changes(have, want)
	assert.Check(t, slices.Equal(calls(keyOf(2), all), []toCall{{key: keyOf(3), called: true, first: true}}))
	hex := func(b byte) string { return fmt.Sprintf("public_key=%02x%s\n", b, strings.Repeat("00", 31)) }
	assert.Equal(t, text(all), hex(1)+"update_only=true\nendpoint=10.0.0.7:7484\nallowed_ip=10.0.0.7/32\nallowed_ip=10.1.0.64/26\n"+
		hex(3)+"endpoint=[2001:db8::3]:7484\npersistent_keepalive_interval=25\nallowed_ip=2001:db8::3/128\n"+
		hex(1)+"update_only=true\nreplace_allowed_ips=true\nallowed_ip=10.0.0.7/32\nallowed_ip=10.1.0.64/26\n"+
		hex(2)+"remove=true\n")
	assert.Equal(t, len(peerConfigs(all)), 4)
	assert.Check(t, peerConfigs(all)[3].Remove && !peerConfigs(all)[3].UpdateOnly)
}

// One of two hosts calls at once, the other later.
func TestCalls(t *testing.T) {
	for own, other := range map[byte]byte{1: 2, 2: 1} {
		all := changes(nil, remotes([]carrier.Peer{peerOf(other, "10.0.0.1")}))
		later := calls(keyOf(own), all)
		assert.Equal(t, all[0].call, own < other)
		assert.Check(t, slices.Equal(later, []toCall{{key: keyOf(other), called: own < other, first: own < other}}))
	}
	have := remotes([]carrier.Peer{peerOf(1, "10.0.0.1"), peerOf(2, "10.0.0.2")})
	later := []toCall{{key: keyOf(1)}, {key: keyOf(2)}, {key: keyOf(3)}}
	back, again := callsBack(later, have, map[wgtypes.Key]status{keyOf(1): {handshake: time.Unix(1, 0)}})
	assert.Equal(t, len(back), 3)
	assert.Check(t, slices.Equal(again, []toCall{{key: keyOf(2), called: true}}))
	assert.DeepEqual(t, text(back[:1]), text([]change{{key: keyOf(1), call: true}}))
	assert.Check(t, back[1].remove && back[2].fresh && back[2].call && back[2].key == keyOf(2))
}

// A host that has answered is called again only if its own call came too.
func TestCallsThatCross(t *testing.T) {
	have := remotes([]carrier.Peer{peerOf(1, "10.0.0.1")})
	const call, answer, data = 148, 92, 32 + 1408
	for _, c := range []struct {
		what     string
		called   bool
		received int64
		again    bool
	}{
		{"it called by itself", false, call + 32, false},
		{"it answered", true, answer, false},
		{"it answered and sends", true, answer + 3*data + 32, false},
		{"it called and answered, and nothing more comes", true, call + answer, true},
		{"it called and answered, and sends", true, call + answer + data, false},
		{"it called, and the call to it was lost", true, call + 32, false},
	} {
		for _, first := range []bool{false, c.called} {
			seen := map[wgtypes.Key]status{keyOf(1): {handshake: time.Unix(1, 0), received: c.received}}
			_, again := callsBack([]toCall{{keyOf(1), c.called, first}}, have, seen)
			assert.Equal(t, len(again) == 1, c.again, c.what)
		}
	}
	// Who calls first does not call again while nobody has answered.
	first := toCall{keyOf(1), true, true}
	all, again := callsBack([]toCall{first}, have, nil)
	assert.Equal(t, len(all), 0)
	assert.Check(t, slices.Equal(again, []toCall{first}))
}

// Whatever changes, the device ends up knowing what it must, and no address is
// without a remote that had one before and has one after.
func TestChanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) map[wgtypes.Key]remote {
			owner := rapid.MapOf(rapid.IntRange(0, 15), rapid.ByteRange(1, 4)).Draw(t, name)
			var peers []carrier.Peer
			for n, b := range owner {
				peers = append(peers, peerOf(b, fmt.Sprintf("10.0.0.%d", b), fmt.Sprintf("10.1.%d.0/26", n)))
			}
			return remotes(peers)
		}
		have, want := draw("have"), draw("want")
		at := map[netip.Prefix]wgtypes.Key{}
		known := map[wgtypes.Key]bool{}
		drop := func(k wgtypes.Key) {
			for p, at2 := range at {
				if at2 == k {
					delete(at, p)
				}
			}
		}
		apply := func(c change) {
			if c.replace || c.remove {
				drop(c.key)
			}
			known[c.key] = !c.remove
			for _, p := range c.add {
				at[p] = c.key
			}
		}
		for _, c := range changes(nil, have) {
			apply(c)
		}
		for _, c := range changes(have, want) {
			apply(c)
			for _, h := range have {
				for _, w := range want {
					for _, p := range h.allowed {
						if _, ok := at[p]; slices.Contains(w.allowed, p) && !ok {
							t.Fatalf("%s has no remote after %+v", p, c)
						}
					}
				}
			}
		}
		n := 0
		for k, w := range want {
			for _, p := range w.allowed {
				n++
				if at[p] != k {
					t.Fatalf("%s is at %s instead of %s", p, at[p], k)
				}
			}
		}
		if n != len(at) {
			t.Fatalf("%d addresses instead of %d", len(at), n)
		}
	})
}

func TestHeard(t *testing.T) {
	now := time.Unix(10_000, 0)
	want := remotes([]carrier.Peer{peerOf(1, "10.0.0.1"), peerOf(2, "10.0.0.2"), peerOf(3, "10.0.0.3")})
	place := netip.MustParseAddrPort("192.0.2.1:40000")
	seen := map[wgtypes.Key]status{
		keyOf(1): {endpoint: place, handshake: now.Add(-time.Minute)},
		keyOf(2): {endpoint: place, handshake: now.Add(-time.Hour)},
		keyOf(3): {endpoint: want[keyOf(3)].endpoint},
	}
	assert.DeepEqual(t, fmt.Sprint(elsewhere(want, seen, now)), fmt.Sprint(heard{"host1": place}))
	back := lost(want, seen, now)
	assert.Equal(t, len(back), 1)
	assert.Equal(t, back[0].endpoint.String(), "10.0.0.2:7484")
}

func TestParseStatus(t *testing.T) {
	one, two := keyOf(1), keyOf(2)
	got := parseStatus(fmt.Sprintf("private_key=00\nlisten_port=7484\npublic_key=%x\nendpoint=[2001:db8::1]:7484\nlast_handshake_time_sec=77\nrx_bytes=92\nallowed_ip=10.0.0.0/8\n"+
		"public_key=zz\npublic_key=%x\nlast_handshake_time_sec=0\nerrno=0\n", one[:], two[:]))
	assert.Equal(t, got[keyOf(1)].endpoint.String(), "[2001:db8::1]:7484")
	assert.Equal(t, got[keyOf(1)].handshake, time.Unix(77, 0))
	assert.Equal(t, got[keyOf(1)].received, int64(92))
	assert.Check(t, got[keyOf(2)].handshake.IsZero())
}
