package e2e

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"clocker.io/clocker/e2e/testbed"
	fleettoken "clocker.io/clocker/pkg/fleet/token"
)

// A machine that nobody reaches must join with a token, once; a token that is
// none, has expired, was used, is a person's or is another fleet's must leave
// the machine as it was.
func TestMachineMustJoinByItself(t *testing.T) {
	f := adopters(t, "join", 0)
	h2 := f.bed.Host("h2")
	install(t, h2)
	join := func(token string) result {
		return runCommand(h2.Command(t.Context(), "docker", "clocker", "host", "join", token))
	}
	token := strings.TrimSpace(f.clocker(t, "token", "create", "--label", "zone=nat"))
	brief := strings.TrimSpace(f.clocker(t, "token", "create", "--expires", "1s"))
	person := strings.TrimSpace(f.clocker(t, "user", "add", "ann"))
	changed := func(change func(*fleettoken.Token)) string {
		tok, err := fleettoken.Parse(token)
		succeeds(t, err)
		change(&tok)
		return tok.String()
	}
	for _, c := range []struct{ name, token, want string }{
		{"nonsense", "let-me-in", "this is no token"},
		{"cut short", token[:len(token)-4], "copy it again"},
		{"expired", brief, "has expired"},
		{"a person's", person, "this token is for a person"},
		{"of another authority", changed(func(k *fleettoken.Token) { k.CAFingerprint = strings.Repeat("0a", 32) }), "ask for a token of the fleet that runs there"},
		{"of a fleet by another name", changed(func(k *fleettoken.Token) { k.Fleet = "another" }), "fleet " + f.name + " answers"},
		{"of a fleet that is away", changed(func(k *fleettoken.Token) { k.Controllers = []string{"https://" + h2.Address + ":1"} }), "must reach https://" + h2.Address},
		{"with another secret", changed(func(k *fleettoken.Token) { k.Secret = strings.Repeat("a", len(k.Secret)) }), "token"},
	} {
		r := join(c.token)
		if r.code == 0 || !strings.Contains(r.stderr, c.want) {
			t.Errorf("%s: exit %d, standard error lacks %q:\n%s", c.name, r.code, c.want, r.stderr)
		}
		untouched(t, h2)
	}
	if n := len(f.hosts(t)); n != 1 {
		t.Errorf("the fleet has %d hosts", n)
	}
	if r := join(token); r.code != 0 {
		t.Fatal(r.err())
	}
	h := f.hosts(t)["h2"]
	if h.Status != "ready" || h.Labels["zone"] != "nat" || h.Endpoint != "" {
		t.Errorf("h2 is %+v", h)
	}
	if out := f.clocker(t, "host", "exec", "h2", "hostname"); out != "h2\n" {
		t.Errorf("on the machine: %q", out)
	}
	upgradeThroughAgent(t, f, h2)
	f.clocker(t, "host", "rm", "h2")
	if r := runCommand(h2.Command(t.Context(), "docker", "clocker", "host", "leave")); r.code != 0 {
		t.Fatal(r.err())
	}
	untouched(t, h2)
	r := join(token)
	if r.code == 0 || !strings.Contains(r.stderr, "used") {
		t.Errorf("used: exit %d:\n%s", r.code, r.stderr)
	}
	untouched(t, h2)
}

// install puts the programs under test on a host, as a user there has them.
func install(t *testing.T, h *testbed.Host) {
	t.Helper()
	for name, dir := range map[string]string{
		"docker-clocker": "usr/local/lib/docker/cli-plugins", "clocker-net": "usr/local/lib/clocker",
	} {
		at := filepath.Join(h.Root(), dir)
		succeeds(t, os.MkdirAll(at, 0o755))
		in, err := os.Open(filepath.Join(bin(), name))
		succeeds(t, err)
		out, err := os.OpenFile(filepath.Join(at, name), os.O_CREATE|os.O_WRONLY, 0o755)
		succeeds(t, err)
		_, err = io.Copy(out, in)
		succeeds(t, err)
		succeeds(t, in.Close())
		succeeds(t, out.Close())
	}
}

// untouched holds that nothing of Clocker is on a host.
func untouched(t *testing.T, h *testbed.Host) {
	t.Helper()
	out, err := h.Exec(t.Context(), "sh", "-c", "docker ps -aq; docker images -q; docker plugin ls -q; ls -A /etc/clocker 2>/dev/null || true")
	if err != nil || out != "" {
		t.Errorf("%s is not as it was: %s %v", h.Name, out, err)
	}
}

// upgradeThroughAgent upgrades a host whose engine nobody reaches but its agent:
// the agent is exchanged under whoever does that, and all of it is there once.
func upgradeThroughAgent(t *testing.T, f *fleet, h2 *testbed.Host) {
	t.Helper()
	all := func() string {
		out, err := h2.Exec(t.Context(), "docker", "ps", "-a", "--no-trunc", "--format", "{{.Names}} {{.ID}} {{.State}}")
		succeeds(t, err)
		return strings.TrimSpace(out)
	}
	plugin := func() string {
		out, err := h2.Exec(t.Context(), "docker", "plugin", "inspect", "-f", "{{.ID}}", pluginName)
		succeeds(t, err)
		return out
	}
	agentWas, pluginWas := all(), plugin()
	dir := otherBuild(t)
	for _, want := range []string{"agent made anew", "agent runs"} {
		up := withEnv(f.prepare(t.Context(), "clocker", "host", "upgrade", "h2"), "CLOCKER_LIB="+dir)
		up.Env = swapConfig(t, f, up.Env, dir)
		if r := runCommand(up); r.code != 0 || !strings.Contains(r.stderr, want) {
			t.Fatalf("exit %d, standard error lacks %q:\n%s", r.code, want, r.stderr)
		}
		agent := all()
		if !strings.HasPrefix(agent, "clocker-agent ") || strings.Contains(agent, "\n") || !strings.HasSuffix(agent, " running") {
			t.Errorf("containers on h2:\n%s", agent)
		}
		if agent == agentWas || plugin() == pluginWas {
			t.Errorf("agent or plugin is the old one: %s", agent)
		}
	}
	if out := f.clocker(t, "host", "exec", "h2", "hostname"); out != "h2\n" {
		t.Errorf("on the machine: %q", out)
	}
	_, err := h2.Exec(t.Context(), "docker", "stop", "clocker-agent")
	succeeds(t, err)
	f.refused(t, 3, []string{"the agent of host h2 does not answer"}, "host", "upgrade", "h2")
	some := f.refused(t, 3, []string{"not upgraded", "the agent of host h2 does not answer"}, "host", "upgrade", "--all", "--quiet")
	if some.stdout != "h1\n" {
		t.Errorf("upgraded: %q", some.stdout)
	}
	_, err = h2.Exec(t.Context(), "docker", "start", "clocker-agent")
	succeeds(t, err)
	await(t, 20*time.Second, "h2 is ready again", func() error {
		if s := f.hosts(t)["h2"].Status; s != "ready" {
			return fmt.Errorf("it is %s", s)
		}
		return nil
	})
}
