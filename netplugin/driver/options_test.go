package driver

import (
	"encoding/json"
	"testing"

	"gotest.tools/v3/assert"
)

func TestParseOptions(t *testing.T) {
	generic := func(kv ...string) map[string]any {
		g := map[string]any{}
		for i := 0; i < len(kv); i += 2 {
			g[kv[i]] = kv[i+1]
		}
		return map[string]any{keyGeneric: g}
	}
	for _, c := range []struct {
		name string
		in   map[string]any
		want options
		errs []string
	}{
		{name: "none"},
		{
			name: "all",
			in:   generic(optNetwork, "n", optEgress, "plugin", optMTU, "1400", optSegment, "routed", optCarrier, "auto"),
			want: options{network: "n", egress: "plugin", mtu: 1400, segment: "routed", carrier: "auto"},
		},
		{name: "the engine's MTU", in: generic(optEngineMTU, "1300"), want: options{mtu: 1300}},
		{name: "the engine's own", in: generic("com.docker.network.advertise_addr_ms", "1")},
		{name: "internal", in: map[string]any{keyInternal: true, keyIPv4: false, keyIPv6: true}, want: options{internal: true, noIPv4: true, ipv6: true}},
		{
			name: "everything wrong is told at once",
			in:   map[string]any{keyGeneric: map[string]any{"clocker.vni": "1", "foo": "x", optMTU: "big", optEgress: "both", "com.docker.network.bridge.name": "br"}, keyIPv6: false, keyIPv4: "false"},
			errs: []string{
				"without IPv4 needs IPv6", "option clocker.vni is not known: this driver has clocker.broadcast, clocker.carrier, clocker.egress, clocker.mtu, clocker.network, clocker.segment, clocker.unfiltered",
				"option foo is not known", "an MTU is a number of bytes", "option clocker.egress=both is not known: available is plugin, engine", "com.docker.network.bridge.name",
			},
		},
		{name: "not a map", in: map[string]any{keyGeneric: "x"}, errs: []string{"not a map"}},
		{name: "not text", in: map[string]any{keyGeneric: map[string]any{optMTU: 1.0}}, errs: []string{"not text"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parseOptions(c.in)
			if len(c.errs) == 0 {
				assert.NilError(t, err)
				assert.Equal(t, got, c.want)
			}
			for _, text := range c.errs {
				assert.ErrorContains(t, err, text)
			}
		})
	}
}

func TestBindings(t *testing.T) {
	var options map[string]any
	// As engines send it: 20.10 with an empty HostIP, 28 with an address.
	assert.NilError(t, json.Unmarshal([]byte(`{"com.docker.network.portmap": [
		{"Proto":6,"IP":"","Port":80,"HostIP":"","HostPort":8080,"HostPortEnd":8082},
		{"Proto":17,"IP":"","Port":53,"HostIP":"127.0.0.1","HostPort":0,"HostPortEnd":0},
		{"Proto":6,"IP":"","Port":81,"HostIP":"0.0.0.0","HostPort":9,"HostPortEnd":9}]}`), &options))
	bs, told, err := bindings(options)
	assert.NilError(t, err)
	assert.Check(t, told)
	assert.Equal(t, len(bs), 3)
	var got []string
	for _, b := range bs {
		ps, err := b.candidates()
		assert.NilError(t, err)
		for _, p := range ps {
			got = append(got, p.String())
		}
	}
	assert.DeepEqual(t, got, []string{
		"0.0.0.0:8080->80/tcp", "0.0.0.0:8081->80/tcp", "0.0.0.0:8082->80/tcp", "127.0.0.1:0->53/udp", "0.0.0.0:9->81/tcp",
	})
	_, told, err = bindings(map[string]any{})
	assert.NilError(t, err)
	assert.Check(t, !told)
	_, _, err = bindings(map[string]any{keyPortMap: "x"})
	assert.ErrorContains(t, err, "read published ports")
	ps, err := binding{HostIP: "2001:db8::1", Port: 80, HostPort: 8080}.candidates()
	assert.NilError(t, err)
	assert.Equal(t, ps[0].String(), "[2001:db8::1]:8080->80/0")
	_, err = binding{HostIP: "nonsense", Port: 80}.candidates()
	assert.ErrorContains(t, err, "publish port 80")
}

// FuzzBindings: whatever comes in a call, reading it does not crash.
func FuzzBindings(f *testing.F) {
	f.Add(`{"com.docker.network.portmap":[{"Proto":6,"Port":80}]}`)
	f.Add(`{"com.docker.network.generic":{"clocker.mtu":"1500"},"com.docker.network.enable_ipv6":"x"}`)
	f.Fuzz(func(_ *testing.T, text string) {
		var options map[string]any
		if json.Unmarshal([]byte(text), &options) != nil {
			return
		}
		_, _ = parseOptions(options)
		bs, _, _ := bindings(options)
		for _, b := range bs {
			_, _ = b.candidates()
		}
	})
}
