package fleet

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/system"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet/preflight"
	"clocker.io/clocker/pkg/record"
)

func TestEnginesThatWillNotDoAreNamed(t *testing.T) {
	for name, tc := range map[string]struct {
		version, os string
		options     []string
		want        []string
	}{
		"good":               {"28.5.2+dfsg1", "linux", nil, nil},
		"oldest":             {"20.10.24+dfsg1", "linux", nil, nil},
		"a branch":           {"master-dockerproject", "linux", nil, nil},
		"too old":            {"19.03.15", "linux", nil, []string{"too old"}},
		"panics":             {"29.0.0", "linux", nil, []string{"crashes with network plugins"}},
		"panics still":       {"v29.0.2", "linux", nil, []string{"crashes"}},
		"mended":             {"29.0.3", "linux", nil, nil},
		"later":              {"29.1.0-rc.1", "linux", nil, nil},
		"Windows":            {"28.5.2", "windows", nil, []string{"windows containers"}},
		"rootless":           {"28.5.2", "linux", []string{"name=seccomp,profile=builtin", "name=rootless"}, []string{"rootless"}},
		"everything at once": {"18.09.1", "windows", []string{"name=rootless"}, []string{"too old", "windows", "rootless"}},
	} {
		t.Run(name, func(t *testing.T) {
			matches(t, checkEngine(tc.version, tc.os, system.Info{SecurityOptions: tc.options}), tc.want)
		})
	}
}

// matches checks that each problem holds the text wanted at its place.
func matches(t *testing.T, got, want []string) {
	t.Helper()
	assert.Equal(t, len(got), len(want), "%q", got)
	for i := range want {
		assert.Assert(t, strings.Contains(got[i], want[i]), "%q lacks %q", got[i], want[i])
	}
}

func good() candidate {
	return candidate{
		fleet: "demo", ca: "aa", name: "h1", engineID: "E1",
		facts: preflight.Facts{IPForward: true, Routes: []string{"10.0.0.0/24", "172.17.0.0/16"}},
		pools: []string{"10.208.0.0/12"},
		hosts: []api.Host{{Host: record.Host{ID: "2", Name: "h2", EngineID: "E2", Endpoint: "ssh://h2"}}},
	}
}

func TestEveryReasonAgainstAHostIsGivenAtOnce(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(c *candidate)
		want   []string
	}{
		"none":                     {func(*candidate) {}, nil},
		"member of another fleet":  {func(c *candidate) { c.facts.Member = &preflight.Member{Fleet: "prod", Name: "x"} }, []string{"host x of fleet prod"}},
		"a fleet of the same name": {func(c *candidate) { c.facts.Member = &preflight.Member{Fleet: "demo", CA: "bb"} }, []string{"called demo as well"}},
		"added before":             {func(c *candidate) { c.facts.Member = &preflight.Member{Fleet: "demo", CA: "aa"} }, nil},
		"away while the authority was changed": {func(c *candidate) {
			c.name, c.engineID, c.facts.Member = "h2", "E2", &preflight.Member{Fleet: "demo", Name: "h2", HostID: "2", CA: "bb"}
		}, nil},
		"the same id on another engine": {func(c *candidate) {
			c.facts.Member = &preflight.Member{Fleet: "demo", Name: "h2", HostID: "2", CA: "bb"}
		}, []string{"called demo as well"}},
		"interrupted before":      {func(c *candidate) { c.facts.Member = &preflight.Member{Fleet: "demo"} }, nil},
		"name taken":              {func(c *candidate) { c.name = "h2" }, []string{"name h2 is taken by the host at ssh://h2"}},
		"engine has another name": {func(c *candidate) { c.engineID = "E2" }, []string{"already, as host h2"}},
		"same name and engine":    {func(c *candidate) { c.name, c.engineID = "h2", "E2" }, nil},
		"routes meet the pool":    {func(c *candidate) { c.facts.Routes = []string{"10.0.0.0/8", "10.215.0.0/24"} }, []string{"10.0.0.0/8", "10.215.0.0/24"}},
		"clock ahead":             {func(c *candidate) { c.skew, c.skewKnown = 6*time.Second, true }, []string{"6s ahead"}},
		"clock behind":            {func(c *candidate) { c.skew, c.skewKnown = -time.Hour, true }, []string{"1h0m0s behind"}},
		"clock near enough":       {func(c *candidate) { c.skew, c.skewKnown = -5*time.Second, true }, nil},
		"slow look at the clock":  {func(c *candidate) { c.skew, c.within, c.skewKnown = 7*time.Second, 3*time.Second, true }, nil},
		"clock not known":         {func(c *candidate) { c.skew = time.Hour }, nil},
		"no forwarding":           {func(c *candidate) { c.facts.IPForward = false }, []string{"ip_forward"}},
		"all": {func(c *candidate) {
			c.name, c.facts = "h2", preflight.Facts{Routes: []string{"10.208.0.0/16"}}
			c.skew, c.skewKnown = time.Minute, true
		}, []string{"taken", "10.208.0.0/16", "1m0s ahead", "ip_forward"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := good()
			tc.change(&c)
			matches(t, checkHost(c), tc.want)
		})
	}
}

func TestPortsOfAControllerThatAreTakenAreNamed(t *testing.T) {
	f := preflight.Facts{Listening: []string{"tcp/22", "tcp/7481", "udp/7480"}}
	matches(t, checkPorts(f, map[string]int{"the API": 7480, "etcd": 7481}), []string{"port 7481, wanted for etcd"})
}

// names answers look-ups from a map.
type names map[string][]netip.Addr

func (n names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	return n[host], nil
}

func TestAddressIsChosenInOrder(t *testing.T) {
	facts := preflight.Facts{
		Addresses: []preflight.Address{
			{Link: "docker0", Address: netip.MustParsePrefix("172.17.0.1/16")},
			{Link: "eth0", Address: netip.MustParsePrefix("fd00::7/64")},
			{Link: "eth0", Address: netip.MustParsePrefix("10.0.0.7/24")},
			{Link: "eth1", Address: netip.MustParsePrefix("192.168.1.7/24")},
		},
		DefaultSource: "192.168.1.7",
	}
	islands := facts
	islands.DefaultSource = ""
	dns := names{"h1": {netip.MustParseAddr("10.0.0.7")}, "nat": {netip.MustParseAddr("203.0.113.9")}}
	for name, tc := range map[string]struct {
		asked, endpoint string
		facts           preflight.Facts
		foreign         bool
		want, err       string
	}{
		"asked for":                     {"10.0.0.7", "ssh://192.168.1.7", facts, false, "10.0.0.7", ""},
		"asked for and not its own":     {"203.0.113.9", "", facts, false, "", "none of the machine's own: 172.17.0.1"},
		"asked for, translated":         {"203.0.113.9", "", facts, true, "203.0.113.9", ""},
		"asked for and no address":      {"h1", "", facts, true, "", "not an address"},
		"endpoint's address":            {"", "tcp://10.0.0.7:2376", facts, false, "10.0.0.7", ""},
		"endpoint's name":               {"", "ssh://root@h1", facts, false, "10.0.0.7", ""},
		"endpoint's unknown name":       {"", "ssh://root@h9", facts, false, "192.168.1.7", ""},
		"endpoint is translated":        {"", "ssh://root@nat", facts, false, "192.168.1.7", ""},
		"controller is translated":      {"", "ssh://root@nat", facts, true, "203.0.113.9", ""},
		"through a tunnel":              {"", "ssh://root@127.0.0.1:2222", facts, true, "192.168.1.7", ""},
		"socket":                        {"", "unix:///var/run/docker.sock", facts, true, "192.168.1.7", ""},
		"no default route":              {"", "", islands, false, "10.0.0.7", ""},
		"no address but the loopback's": {"", "", preflight.Facts{}, false, "127.0.0.1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ChooseAddress(context.Background(), tc.asked, tc.endpoint, tc.facts, tc.foreign, dns)
			if tc.err != "" {
				assert.ErrorContains(t, err, tc.err)
				return
			}
			assert.NilError(t, err)
			assert.Equal(t, got, tc.want)
		})
	}
}

func TestHostNamesBecomeNames(t *testing.T) {
	for in, want := range map[string]string{
		"h1": "h1", "Web-01.example.org": "web-01", "my_host": "my-host", "_x_": "x", "": "", "...": "",
		strings.Repeat("a", 70): strings.Repeat("a", 63),
	} {
		assert.Equal(t, HostName(in), want, "%q", in)
		if want != "" {
			assert.NilError(t, CheckName("host", want))
		}
	}
}

func TestSocketOnTheFarSideIsTheEndpoints(t *testing.T) {
	for in, want := range map[string]string{
		"": "/var/run/docker.sock", "tcp://10.0.0.7:2376": "/var/run/docker.sock", "context:x": "/var/run/docker.sock",
		"ssh://root@h1": "/var/run/docker.sock", "ssh://root@h1/": "/var/run/docker.sock",
		"ssh://root@h1:22/run/d.sock": "/run/d.sock", "unix:///run/d.sock": "/run/d.sock",
	} {
		assert.Equal(t, engineSocket(in), want, "%q", in)
	}
}

func TestProblemsAreListedOneALine(t *testing.T) {
	assert.Error(t, &Problems{Subject: "h1", List: []string{"a"}}, "h1: a")
	assert.Error(t, &Problems{Subject: "h1", List: []string{"a", "b"}}, "h1: 2 problems:\n  a\n  b")
}
