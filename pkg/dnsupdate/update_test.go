package dnsupdate

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
	"clocker.io/clocker/pkg/store/storetest"
)

// bind is a real BIND with the zones example.org and 208.10.in-addr.arpa.
// Debian's package bind9 has it.
type bind struct {
	t    *testing.T
	dir  string
	port int
	cmd  *exec.Cmd
}

const secret = "c2VjcmV0LXRoYXQtbm9ib2R5LXNoYWxsLWtub3c="

func startBind(t *testing.T) *bind {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	b := &bind{t: t, dir: t.TempDir(), port: l.Addr().(*net.TCPAddr).Port}
	assert.NilError(t, l.Close())
	b.write("key", `key "clocker" { algorithm hmac-sha256; secret "`+secret+`"; };`)
	b.write("org", "$TTL 60\n@ IN SOA ns hostmaster 1 3600 600 86400 60\n@ IN NS ns\nns IN A 192.0.2.53\nwww IN A 192.0.2.80\nweb.blog IN A 192.0.2.81\n")
	b.write("arpa", "$TTL 60\n@ IN SOA ns.example.org. hostmaster.example.org. 1 3600 600 86400 60\n@ IN NS ns.example.org.\n")
	zone := func(name, file string) string {
		return fmt.Sprintf("zone %q { type primary; file %q; allow-transfer { key clocker; }; update-policy { grant clocker zonesub ANY; }; };\n", name, b.dir+"/"+file)
	}
	b.write("named.conf", fmt.Sprintf(`include "%[1]s/key";
options { directory "%[1]s"; pid-file none; session-keyfile none; listen-on port %[2]d { 127.0.0.1; }; listen-on-v6 { none; }; recursion no; dnssec-validation no; };
controls { };
`, b.dir, b.port)+zone("example.org", "org")+zone("208.10.in-addr.arpa", "arpa"))
	b.start()
	t.Cleanup(b.stop)
	return b
}

func (b *bind) write(name, text string) {
	b.t.Helper()
	assert.NilError(b.t, os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600))
}

func (b *bind) start() {
	b.t.Helper()
	b.cmd = exec.Command("named", "-g", "-n", "1", "-c", filepath.Join(b.dir, "named.conf"))
	log, err := os.Create(filepath.Join(b.dir, "log"))
	assert.NilError(b.t, err)
	b.cmd.Stderr = log
	assert.NilError(b.t, b.cmd.Start(), "these tests need BIND: apt-get install bind9")
	assert.NilError(b.t, log.Close())
	b.until("BIND answers", func() bool { return len(b.ask("ns.example.org.", dns.TypeA)) == 1 })
}

func (b *bind) stop() {
	if b.cmd != nil {
		_ = b.cmd.Process.Kill()
		_ = b.cmd.Wait()
		b.cmd = nil
	}
}

func (b *bind) address() string { return fmt.Sprintf("127.0.0.1:%d", b.port) }

// ask gives what an answer says, sorted.
func (b *bind) ask(name string, typ uint16) []string {
	m := new(dns.Msg)
	m.SetQuestion(name, typ)
	r, err := dns.Exchange(m, b.address())
	if err != nil {
		return nil
	}
	var out []string
	for _, rr := range r.Answer {
		out = append(out, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	slices.Sort(out)
	return out
}

func (b *bind) until(what string, ok func() bool) {
	b.t.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); {
		if time.Now().After(end) {
			log, _ := os.ReadFile(filepath.Join(b.dir, "log"))
			b.t.Fatalf("waited for: %s\n%s", what, log)
		}
	}
}

func (b *bind) says(name string, typ uint16, want ...string) {
	b.t.Helper()
	b.until(fmt.Sprintf("%s %s is %v (is %v)", name, dns.TypeToString[typ], want, b.ask(name, typ)), func() bool {
		return slices.Equal(b.ask(name, typ), want)
	})
}

func replica(app, service string, slot int, addr, addr6 string) record.NameRecord {
	return record.NameRecord{
		App: app, Service: service, Replica: fmt.Sprintf("%s-%s-%d", app, service, slot),
		Networks: map[string]record.NamedAddress{"n1": {Address: addr, Address6: addr6}},
		Ports:    []model.Port{{ContainerPort: 80, Protocol: "tcp"}},
	}
}

// rig is an updater that keeps names of a real etcd in a real BIND.
type rig struct {
	*bind
	store *store.Store
}

func newRig(t *testing.T) *rig {
	r := &rig{bind: startBind(t), store: store.New(storetest.Start(t), "f")}
	cfg, err := ParseConfig("server=" + r.address() + ",zone=example.org,reverse=208.10.in-addr.arpa,key-file=" + filepath.Join(r.dir, "key"))
	assert.NilError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	u := &Updater{Config: cfg, Fleet: "f", Log: slog.New(slog.DiscardHandler), Now: time.Now}
	go func() { defer close(done); u.Run(ctx, r.store) }()
	t.Cleanup(func() { cancel(); <-done })
	return r
}

func (r *rig) put(key string, v any) {
	r.t.Helper()
	_, err := r.store.Txn().Put(key, v).Commit(r.t.Context())
	assert.NilError(r.t, err)
}

func (r *rig) remove(key string) {
	r.t.Helper()
	_, err := r.store.Client().Delete(r.t.Context(), key)
	assert.NilError(r.t, err)
}

func TestNamesAreKeptInBind(t *testing.T) {
	r := newRig(t)
	k := r.store.Keys
	r.put(k.Name("h1", "t1"), replica("shop", "web", 1, "10.208.0.2", "fd00::2"))
	r.put(k.Name("h2", "t2"), replica("shop", "web", 2, "10.208.0.3/20", ""))
	r.put(k.Name("h2", "t3"), replica("blog", "web", 1, "10.208.16.2", ""))
	r.put(k.Name("h2", "container.abc"), record.NameRecord{Replica: "plain", Networks: map[string]record.NamedAddress{"n1": {Address: "10.208.0.9"}}})
	r.says("web.shop.example.org.", dns.TypeA, "10.208.0.2", "10.208.0.3")
	r.says("web.shop.example.org.", dns.TypeAAAA, "fd00::2")
	r.says("shop-web-2.shop.example.org.", dns.TypeA, "10.208.0.3")
	r.says("_80._tcp.web.shop.example.org.", dns.TypeSRV, "0 0 80 shop-web-1.shop.example.org.", "0 0 80 shop-web-2.shop.example.org.")
	r.says("3.0.208.10.in-addr.arpa.", dns.TypePTR, "shop-web-2.shop.example.org.")
	r.says("blog-web-1.blog.example.org.", dns.TypeA, "10.208.16.2")
	// Somebody else's names stay what they are.
	r.says("web.blog.example.org.", dns.TypeA, "192.0.2.81")
	r.says("www.example.org.", dns.TypeA, "192.0.2.80")
	assert.Equal(t, len(r.ask("9.0.208.10.in-addr.arpa.", dns.TypePTR)), 0)

	// A service gets an address of its own, a replica dies.
	r.put(k.Service("n1", "10.208.0.200"), record.Service{App: "shop", Service: "web", Address: "10.208.0.200"})
	r.remove(k.Name("h1", "t1"))
	r.says("web.shop.example.org.", dns.TypeA, "10.208.0.200")
	r.says("web.shop.example.org.", dns.TypeAAAA)
	r.says("shop-web-1.shop.example.org.", dns.TypeA)
	r.says("2.0.208.10.in-addr.arpa.", dns.TypePTR)

	// The application is removed: nothing is left, not even the marks.
	r.remove(k.Service("n1", "10.208.0.200"))
	r.remove(k.Name("h2", "t2"))
	r.remove(k.Name("h2", "t3"))
	for _, name := range []string{"web.shop", "shop-web-2.shop", "_80._tcp.web.shop", "blog-web-1.blog"} {
		for _, typ := range []uint16{dns.TypeA, dns.TypeSRV, dns.TypeTXT} {
			r.says(name+".example.org.", typ)
		}
	}
	r.says("3.0.208.10.in-addr.arpa.", dns.TypeTXT)
	r.says("www.example.org.", dns.TypeA, "192.0.2.80")
}

func TestConvergesAfterBindWasAway(t *testing.T) {
	r := newRig(t)
	k := r.store.Keys
	r.put(k.Name("h1", "t1"), replica("shop", "web", 1, "10.208.0.2", ""))
	r.says("web.shop.example.org.", dns.TypeA, "10.208.0.2")
	r.stop()
	r.remove(k.Name("h1", "t1"))
	r.put(k.Name("h1", "t2"), replica("shop", "db", 1, "10.208.0.3", ""))
	r.start()
	r.says("db.shop.example.org.", dns.TypeA, "10.208.0.3")
	r.says("web.shop.example.org.", dns.TypeTXT)
}

func TestSettings(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	assert.NilError(t, os.WriteFile(key, []byte("key \"k\" {\n\talgorithm hmac-sha256;\n\tsecret \""+secret+"\";\n};\n"), 0o600))
	c, err := ParseConfig("server=192.0.2.1,zone=Example.ORG,key-file=" + key)
	assert.NilError(t, err)
	assert.DeepEqual(t, c, Config{Server: "192.0.2.1:53", Zone: "example.org.", Key: Key{"k.", "hmac-sha256.", secret}})
	for text, want := range map[string]string{
		"zone=x":                     "server= and zone= are needed",
		"server=x,zone=y":            "key-file= is needed",
		"color=red":                  `"color" is not known`,
		"server":                     "write it as KEY=VALUE",
		"key-file=" + os.DevNull:     "is not of the form",
		"key-file=" + key + ".other": "no such file",
	} {
		_, err := ParseConfig(text)
		assert.ErrorContains(t, err, want)
	}
}

func TestNothingIsSentForWhatIsThere(t *testing.T) {
	c := Config{Zone: "example.org.", Reverse: []string{"208.10.in-addr.arpa."}}
	want := wanted(c, Records{Names: []record.NameRecord{replica("my_shop", "web", 1, "10.208.0.2", "")}})
	rrs := []dns.RR{}
	for owner, texts := range want {
		rrs = append(rrs, &dns.TXT{Hdr: header(owner, dns.TypeTXT), Txt: []string{mine("f")}})
		for _, text := range texts {
			rr, err := dns.NewRR(text)
			assert.NilError(t, err)
			rrs = append(rrs, rr)
		}
	}
	assert.Assert(t, want["web.my-shop.example.org."] != nil, "%v", want)
	have, taken := content("f", rrs)
	changes, refused := compare(want, have, taken)
	assert.Equal(t, len(changes)+len(refused), 0, "%v %v", changes, refused)
	// Of another fleet nothing is touched.
	have, taken = content("g", rrs)
	changes, refused = compare(want, have, taken)
	assert.Equal(t, len(changes), 0)
	assert.Equal(t, len(refused), len(want))
}
