package e2e

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/e2e/testbed"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/hostconfig"
	"clocker.io/clocker/pkg/store"
)

const rotating = `
services:
  front:
    image: clocker.io/test/web:1
    ports: ["%d:80"]
    deploy: {placement: {constraints: ["node.hostname == h1"]}}
  back:
    image: clocker.io/test/web:1
    deploy: {replicas: 3}
`

// authority is what the fleet says of its authority.
func (f *fleet) authority(t *testing.T) (api.CA, error) {
	t.Helper()
	var out api.CA
	r := f.command(t.Context(), "clocker", "ca", "show", "--format", "json")
	if r.code != 0 {
		return out, r.err()
	}
	err := json.Unmarshal([]byte(r.stdout), &out)
	return out, err
}

// hostFiles copies what a host has to show for itself.
func hostFiles(t *testing.T, h *testbed.Host) *hostconfig.Config {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", h.Root()+"/etc/clocker/.", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cfg, err := hostconfig.Load(dir)
	assert.NilError(t, err)
	return cfg
}

// refuses holds that neither API nor etcd lets somebody in who shows these
// files, whoever they trust themselves.
func refuses(t *testing.T, old *hostconfig.Config, now *hostconfig.Config) {
	t.Helper()
	mutual, err := old.TLS()
	assert.NilError(t, err)
	trust, err := now.TLS()
	assert.NilError(t, err)
	mutual.RootCAs = trust.RootCAs
	for _, addr := range []string{strings.TrimPrefix(now.Controllers[0], "https://"), strings.TrimPrefix(now.Etcd[0], "https://")} {
		// In TLS 1.3 the refusal comes with the first answer.
		err := handshake(t.Context(), addr, mutual)
		if err == nil || !strings.Contains(err.Error(), "unknown certificate authority") && !strings.Contains(err.Error(), "bad certificate") {
			t.Errorf("%s does not refuse a certificate of the old authority: %v", addr, err)
		}
		assert.NilError(t, handshake(t.Context(), addr, trust))
	}
}

// handshake connects and reads until the other side says something, or nothing
// against it for a second.
func handshake(ctx context.Context, addr string, c *tls.Config) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := (&tls.Dialer{Config: c}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	var wait interface{ Timeout() bool }
	if errors.As(err, &wait) && wait.Timeout() {
		return nil
	}
	return err
}

// The authority of a fleet that works is replaced: no request fails, everybody
// has new certificates then, a deploy works, and the old ones open nothing.
func TestAuthorityMustBeReplacedUnderTraffic(t *testing.T) {
	f := shared
	began := time.Now()
	f.deploy(t, "rotate", "compose.yaml", fmt.Sprintf(rotating, 18340))
	containers := f.containers(t, "rotate")
	page := fmt.Sprintf("http://%s:18340/dial?addr=back:80", f.bed.Host("h1").Address)
	await(t, 10*time.Second, "front reaches back", func() error { _, _, err := get(t.Context(), page); return err })
	cora := newPerson(t, f)
	cora.may(t, "fleet", "join", strings.TrimSpace(f.clocker(t, "user", "add", "cora", "--role", "read")))
	t.Cleanup(func() { f.command(context.Background(), "clocker", "user", "rm", "cora") })
	old := map[string]*hostconfig.Config{}
	await(t, 30*time.Second, "every host tells whose its certificate is", func() error {
		it, err := f.authority(t)
		for _, b := range it.Bearers {
			if b.Authority == "" {
				err = errors.Join(err, fmt.Errorf("%s %s", b.Kind, b.Name))
			}
		}
		return err
	})
	before, err := f.authority(t)
	assert.NilError(t, err)
	for _, h := range f.bed.Hosts() {
		old[h.Name] = hostFiles(t, h)
	}
	f.refused(t, 5, []string{"not being changed"}, "ca", "rotate", "--abort")

	stop := hammer(t.Context(), page)
	start := time.Now()
	f.clocker(t, "ca", "rotate", "--detach")
	await(t, 60*time.Second, "only cora is waited for", func() error {
		it, err := f.authority(t)
		if err != nil {
			return err
		}
		if it.Stage != "issue" || len(it.Waits) != 1 || !strings.Contains(it.Waits[0], "user cora") {
			return fmt.Errorf("stage %s: %v", it.Stage, it.Waits)
		}
		return nil
	})
	t.Logf("only a user lags: after %s", time.Since(start).Round(100*time.Millisecond))
	cora.may(t, "ls")
	r := f.command(t.Context(), "clocker", "ca", "rotate") // looks on
	assert.NilError(t, r.err())
	took := time.Since(start)
	answers, failures := stop()
	if len(failures) > 0 {
		t.Errorf("%d of %d requests failed while the authority was changed: %v", len(failures), answers+len(failures), failures[0])
	}
	t.Logf("authority changed in %s, %d requests answered", took.Round(100*time.Millisecond), answers)

	after, err := f.authority(t)
	assert.NilError(t, err)
	assert.Equal(t, len(after.Authorities), 1)
	assert.Assert(t, after.Authorities[0].ID != before.Authorities[0].ID)
	for _, b := range after.Bearers {
		assert.Equal(t, b.Authority, after.Authorities[0].ID, "%s %s", b.Kind, b.Name)
	}
	for _, h := range f.bed.Hosts() {
		await(t, 10*time.Second, h.Name+" trusts the new authority only", func() error {
			text, err := h.Exec(t.Context(), "cat", filepath.Join(hostconfig.Dir, "ca.pem"))
			if err != nil {
				return err
			}
			sums, err := ca.Fingerprints([]byte(text))
			if err == nil && (len(sums) != 1 || sums[0] != after.Authorities[0].Fingerprint) {
				err = fmt.Errorf("%v", sums)
			}
			return err
		})
		refuses(t, old[h.Name], hostFiles(t, h))
	}
	f.alive(t, "rotate", 18340, containers)
	f.clocker(t, "deploy", writeFile(t, "compose.yaml", strings.ReplaceAll(fmt.Sprintf(rotating, 18340), "replicas: 3", "replicas: 4")), "--app", "rotate")
	cora.may(t, "ls")
	k := store.NewKeys(f.name)
	got, err := f.etcd(t).Get(t.Context(), k.Authority())
	assert.NilError(t, err)
	assert.Assert(t, !strings.Contains(string(got.Kvs[0].Value), `"key"`), "a key stays in etcd")
	t.Logf("all of it: %s", time.Since(began).Round(100*time.Millisecond))
}

// With three controllers, which start again one after the other, the leader is
// killed in each half of the change; the next one goes on with it.
func TestAuthorityMustBeReplacedThoughLeadersDie(t *testing.T) {
	f := ownFleet(t, "ca", testbed.Options{Name: bed("ca"), Hosts: 3, Engine: "28"})
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	assert.NilError(t, f.init(ctx))
	assert.NilError(t, f.addHosts(ctx))
	f.clocker(t, "controller", "add", "h2")
	f.clocker(t, "controller", "add", "h3")
	assert.NilError(t, voting(f, t, 3))
	f.deploy(t, "rotate", "compose.yaml", fmt.Sprintf(rotating, 18341))
	page := fmt.Sprintf("http://%s:18341/dial?addr=back:80", f.bed.Host("h1").Address)
	await(t, 10*time.Second, "front reaches back", func() error { _, _, err := get(t.Context(), page); return err })
	var before api.CA
	await(t, 30*time.Second, "the change begins", func() error {
		var err error
		if before, err = f.authority(t); err != nil {
			return err
		}
		return f.command(ctx, "clocker", "ca", "rotate", "--detach").err()
	})
	stop, calls := hammer(ctx, page), f.calls(ctx)
	start := time.Now()
	kill(t, f.leader(t), "docker-clocker", "serve")
	killed := map[string]bool{}
	await(t, 2*time.Minute, "the authority is changed", func() error {
		it, err := f.authority(t)
		if err != nil {
			return err
		}
		if (it.Stage == "issue" || it.Stage == "drop") && !killed[it.Stage] {
			killed[it.Stage] = true
			kill(t, f.leader(t), "docker-clocker", "serve")
		}
		if it.Stage != "" {
			return fmt.Errorf("stage %s: %v", it.Stage, it.Waits)
		}
		return nil
	})
	answers, failures := stop()
	if len(failures) > 0 {
		t.Errorf("%d of %d requests failed: %v", len(failures), answers+len(failures), failures[0])
	}
	called, refused := calls()
	if len(refused) > 0 {
		t.Errorf("%d of %d commands failed: %v", len(refused), called, refused[0])
	}
	t.Logf("authority of three controllers changed in %s, leaders killed too in %v, %d requests and %d commands answered",
		time.Since(start).Round(100*time.Millisecond), killed, answers, called)
	after, err := f.authority(t)
	assert.NilError(t, err)
	assert.Assert(t, len(after.Authorities) == 1 && after.Authorities[0].ID != before.Authorities[0].ID)
	for _, b := range after.Bearers {
		assert.Equal(t, b.Authority, after.Authorities[0].ID, "%s %s", b.Kind, b.Name)
	}
	await(t, 30*time.Second, "three members vote", func() error { return voting(f, t, 3) })
	f.shownBy(t, after.Authorities[0].Fingerprint, hostFiles(t, f.bed.Host("h1")))
	f.clocker(t, "deploy", writeFile(t, "compose.yaml", strings.ReplaceAll(fmt.Sprintf(rotating, 18341), "replicas: 3", "replicas: 4")), "--app", "rotate")
	// What further controllers and backups are made from is the new authority.
	archive := filepath.Join(t.TempDir(), "backup")
	f.clocker(t, "backup", "-o", archive, "--passphrase-file", writeFile(t, "passphrase", "correct horse battery staple\n"))
	f.clocker(t, "controller", "rm", "h3")
	f.clocker(t, "controller", "add", "h3")
	assert.NilError(t, voting(f, t, 3))
}

// shownBy holds that API and etcd of every controller show certificates of one
// authority, on the wire.
func (f *fleet) shownBy(t *testing.T, fingerprint string, as *hostconfig.Config) {
	t.Helper()
	mutual, err := as.TLS()
	assert.NilError(t, err)
	for _, u := range append(append([]string{}, as.Controllers...), as.Etcd...) {
		conn, err := (&tls.Dialer{Config: mutual}).DialContext(t.Context(), "tcp", strings.TrimPrefix(u, "https://"))
		assert.NilError(t, err)
		for _, chain := range conn.(*tls.Conn).ConnectionState().VerifiedChains {
			sum := sha256.Sum256(chain[len(chain)-1].Raw)
			assert.Equal(t, hex.EncodeToString(sum[:]), fingerprint, "%s", u)
		}
		assert.NilError(t, conn.Close())
	}
}

// calls runs one command after another, until stop is called.
func (f *fleet) calls(ctx context.Context) (stop func() (int, []error)) {
	ctx, cancel := context.WithCancel(ctx)
	var called int
	var failed []error
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			called++
			if err := f.command(context.WithoutCancel(ctx), "clocker", "ls").err(); err != nil {
				failed = append(failed, err)
			}
		}
	}()
	return func() (int, []error) {
		cancel()
		<-done
		return called, failed
	}
}

// A host and a person who were away while the authority was changed are told
// what to do, and come back; what runs on the host runs on.
func TestWhoWasAwayWhileTheAuthorityChangedMustComeBack(t *testing.T) {
	f := shared
	h3 := f.bed.Host("h3")
	dora := newPerson(t, f)
	dora.may(t, "fleet", "join", strings.TrimSpace(f.clocker(t, "user", "add", "dora", "--role", "read")))
	t.Cleanup(func() { f.command(context.Background(), "clocker", "user", "rm", "dora") })
	stranger := dockerOn(t, h3, "run", "--detach", "--network", "none", "clocker.io/test/web:1")
	t.Cleanup(func() {
		_, _ = h3.Exec(context.Background(), "docker", "rm", "--force", strings.TrimSpace(stranger)) // it was this test's
	})
	dockerOn(t, h3, "stop", "clocker-agent")
	f.is(t, 30*time.Second, "h3", "lost")
	await(t, 30*time.Second, "the change begins", func() error { return f.command(t.Context(), "clocker", "ca", "rotate", "--detach").err() })
	await(t, time.Minute, "h3 and dora are waited for", func() error {
		it, err := f.authority(t)
		if w := strings.Join(it.Waits, "\n"); err != nil || len(it.Waits) != 2 || !strings.Contains(w, "host h3 is away") || !strings.Contains(w, "user dora") {
			return fmt.Errorf("%s: %v: %w", it.Stage, it.Waits, err)
		}
		return nil
	})
	t.Log(f.clocker(t, "ca", "show"))
	assert.NilError(t, f.command(t.Context(), "clocker", "ca", "rotate", "--finish").err())
	dora.mayNot(t, "joins again with another token", "ls")
	dockerOn(t, h3, "start", "clocker-agent")
	shown := f.clocker(t, "ca", "show", "--no-trunc")
	t.Log(shown)
	for _, want := range []string{"docker clocker host add", "docker clocker user add dora"} {
		assert.Assert(t, strings.Contains(shown, want), "%q is not in\n%s", want, shown)
	}
	assert.NilError(t, f.addHost(t.Context(), h3, false).err())
	f.is(t, 30*time.Second, "h3", "ready")
	assert.Equal(t, strings.TrimSpace(dockerOn(t, h3, "inspect", "--format", "{{.State.Running}}", strings.TrimSpace(stranger))), "true")
	dora.may(t, "fleet", "join", strings.TrimSpace(f.clocker(t, "user", "add", "dora", "--role", "read")))
	dora.may(t, "ls")
	it, err := f.authority(t)
	assert.NilError(t, err)
	for _, b := range it.Bearers {
		assert.Equal(t, b.Lags, "", "%s %s", b.Kind, b.Name)
	}
}
