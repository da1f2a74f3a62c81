package e2e

import (
	"context"
	"crypto/tls"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/fleet/token"
	"clocker.io/clocker/pkg/hostconfig"
	"clocker.io/clocker/pkg/store"
)

// person is somebody with a machine of their own: another docker configuration.
type person struct {
	f      *fleet
	config string
}

func newPerson(t *testing.T, f *fleet) *person { return &person{f: f, config: emptyConfig(t, f)} }

func (p *person) command(t *testing.T, args ...string) result {
	t.Helper()
	c := p.f.prepare(t.Context(), append([]string{"clocker"}, args...)...)
	return runCommand(withEnv(c, "DOCKER_CONFIG="+p.config))
}

func (p *person) may(t *testing.T, args ...string) string {
	t.Helper()
	r := p.command(t, args...)
	assert.NilError(t, r.err())
	return r.stdout
}

func (p *person) mayNot(t *testing.T, why string, args ...string) {
	t.Helper()
	r := p.command(t, args...)
	if r.code == 0 || !strings.Contains(r.stderr, why) {
		t.Errorf("docker clocker %s: exit %d, want a refusal with %q:\n%s%s", strings.Join(args, " "), r.code, why, r.stdout, r.stderr)
	}
}

const oneService = "services:\n  web:\n    image: clocker.io/test/web:1\n"

// A second person must come in with one token, do what their role says and no
// more, and be out at once when they are removed; and the audit log must say
// all of it.
func TestSecondPersonMustDoWhatTheirRoleSays(t *testing.T) {
	f := shared
	invite := strings.TrimSpace(f.clocker(t, "user", "add", "ben", "--role", "deploy", "--app", "team-*"))
	ben := newPerson(t, f)
	ben.may(t, "fleet", "join", invite)
	t.Cleanup(func() { f.command(context.Background(), "clocker", "user", "rm", "ben") })

	f.deploy(t, "other", "compose.yaml", oneService)
	f.removeAfter(t, "team-web")
	ben.may(t, "deploy", writeFile(t, "compose.yaml", oneService), "--app", "team-web")
	ben.mayNot(t, "role deploy for application other", "deploy", writeFile(t, "compose.yaml", oneService), "--app", "other")
	ben.mayNot(t, "may not do that", "rm", "other")
	ben.mayNot(t, "may not do that", "pool", "rm", "default")
	ben.mayNot(t, "may not do that", "user", "ls")
	if out := ben.may(t, "ls", "--quiet"); strings.Contains(out, "other") || !strings.Contains(out, "team-web") {
		t.Errorf("ben sees %q", out)
	}
	ben.may(t, "rm", "team-web")

	// The token is used up, expires, and is of this fleet.
	newPerson(t, f).mayNot(t, "was used before", "fleet", "join", invite)
	short := strings.TrimSpace(f.clocker(t, "user", "add", "late", "--expires", "1ms"))
	newPerson(t, f).mayNot(t, "has expired", "fleet", "join", short)
	newPerson(t, f).mayNot(t, "copy it again", "fleet", "join", short[:len(short)-3])
	tok, err := token.Parse(short)
	assert.NilError(t, err)
	tok.CAFingerprint = strings.Repeat("0a", 32)
	newPerson(t, f).mayNot(t, "not of the fleet", "fleet", "join", tok.String())
	machine := strings.TrimSpace(f.clocker(t, "token", "create"))
	stranger := newPerson(t, f)
	stranger.mayNot(t, "host join", "fleet", "join", machine)
	stranger.mayNot(t, "was used before", "fleet", "join", invite)
	if out := stranger.may(t, "fleet", "ls", "--quiet"); out != "" {
		t.Errorf("a refused person knows fleets: %s", out)
	}

	// Whoever may not take the fleet away can still forget it.
	ben.mayNot(t, "it takes an admin", "fleet", "rm", "--force", f.name)
	f.clocker(t, "user", "rm", "ben")
	ben.mayNot(t, "any more", "ls")
	ben.may(t, "fleet", "forget", f.name)
	if out := ben.may(t, "fleet", "ls", "--quiet"); out != "" {
		t.Errorf("a fleet that was forgotten is known: %s", out)
	}

	log := f.clocker(t, "audit", "--format", "{{.User}} {{.Action}} {{.Subject}} {{.Result}}: {{.Reason}}")
	for _, want := range []string{
		"token create user ben ok", "join as user ben ok", "ben deploy team-web ok", "ben deploy other refused", "ben rm other refused",
		"ben pool rm default refused", "was used before", "has expired", "user rm ben ok", "ben GET applications",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the audit log lacks %q:\n%s", want, log)
		}
	}
	if strings.Contains(log, tok.Secret) || strings.Contains(log, invite) {
		t.Error("the audit log holds a secret")
	}
}

// Whoever has stolen a host's files must be able to do no more than that host:
// neither in etcd nor at the API.
func TestStolenHostCertificateMustOpenNothingElse(t *testing.T) {
	f := shared
	h3 := f.bed.Host("h3")
	stolen := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", h3.Root()+"/etc/clocker/.", stolen).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cfg, err := hostconfig.Load(stolen)
	assert.NilError(t, err)
	client, err := cfg.EtcdClient()
	assert.NilError(t, err)
	defer func() { _ = client.Close() }()
	k := store.NewKeys(f.name)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, key := range []string{k.HostSpec(cfg.HostID), k.HostFacts("other"), k.User("mallory"), k.Token("x"), k.AppCurrent("shop"), k.Name("other", "t"), k.Rule("x"), k.Service("n", "10.0.0.1"), k.Assignment(cfg.HostID, "x")} {
		_, err := client.Put(ctx, key, "{}")
		assert.ErrorIs(t, err, rpctypes.ErrPermissionDenied, key)
	}
	for _, key := range []string{k.Users(), k.Tokens(), k.Apps(), k.Assignments(), k.Audit(), k.Prefix()} {
		_, err := client.Get(ctx, key, clientv3.WithPrefix())
		assert.ErrorIs(t, err, rpctypes.ErrPermissionDenied, key)
	}
	mutual, err := cfg.TLS()
	assert.NilError(t, err)
	for _, path := range []string{"/v1/info", "/v1/applications", "/v1/users"} {
		assert.Equal(t, statusOf(ctx, t, mutual, cfg.Controllers[0]+path), 403, path)
	}
	assert.Equal(t, statusOf(ctx, t, nil, cfg.Controllers[0]+"/v1/info"), 401)
	log := f.clocker(t, "audit", "--format", "{{.User}} {{.Action}} {{.Result}}")
	assert.Assert(t, strings.Contains(log, "GET users refused"), log)
}

// statusOf is how the API answers to whoever has a certificate, or none.
func statusOf(ctx context.Context, t *testing.T, mutual *tls.Config, url string) int {
	t.Helper()
	if mutual == nil {
		mutual = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // it asks as nobody
	}
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: mutual, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	assert.NilError(t, err)
	res, err := c.Do(req)
	assert.NilError(t, err)
	_ = res.Body.Close()
	return res.StatusCode
}
