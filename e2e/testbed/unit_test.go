package testbed

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestLinkNamesFitAndDiffer(t *testing.T) {
	t.Setenv(DirEnv, "")
	seen := map[string]string{}
	for _, name := range []string{"a", "default", "longest-name-one", "longest-name-two", strings.Repeat("z", 24)} {
		l := linkName(name)
		if len(l) > 15 || !strings.HasPrefix(l, "ctb-") {
			t.Errorf("link of %s is %s", name, l)
		}
		if seen[l] != "" {
			t.Errorf("%s and %s share link %s", name, seen[l], l)
		}
		seen[l] = name
	}
	t.Setenv(DirEnv, "/elsewhere")
	if l := linkName("a"); seen[l] != "" || cgroupPath("a", "") == cgroupTop+"/a" {
		t.Errorf("a testbed elsewhere shares link %s or cgroup %s", l, cgroupPath("a", ""))
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{
		{Name: "Upper"}, {Name: "../x"}, {Name: "9x"}, {Hosts: -1}, {Hosts: MaxHosts + 1}, {Engine: "19"},
	} {
		if _, err := o.withDefaults(); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
	o, err := Options{}.withDefaults()
	if err != nil {
		t.Fatal(err) // fails without root, by intent
	}
	if o.Name != DefaultName || o.Hosts != 1 || o.Engine != "28" {
		t.Errorf("defaults are %+v", o)
	}
}

func TestSubnetsDoNotOverlap(t *testing.T) {
	a, err := freeSubnet(nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := freeSubnet([]string{a})
	if err != nil {
		t.Fatal(err)
	}
	if netip.MustParsePrefix(a).Overlaps(netip.MustParsePrefix(b)) {
		t.Errorf("%s overlaps %s", a, b)
	}
}

func TestKillKnowsWhomItMeans(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := lookupProcess(cmd.Process.Pid)
	if err != nil || !p.alive() {
		t.Fatalf("process is not alive: %v", err)
	}
	other := process{PID: p.PID, Start: p.Start + 1}
	if err := other.kill(); err != nil || other.alive() || !p.alive() {
		t.Errorf("a process with the same PID was taken for another: %v", err)
	}
	if err := p.kill(); err != nil {
		t.Fatal(err)
	}
	if p.alive() {
		t.Error("a killed process, not yet reaped, counts as alive")
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) {
		t.Errorf("wait: %v", err)
	}
}

func TestDistilleryFollowsLinksAndLibraries(t *testing.T) {
	tree := t.TempDir()
	sh, err := exec.LookPath("nsenter") // any program with libraries
	if err != nil {
		t.Fatal(err)
	}
	// A tree with links as on a merged /usr, which borrows this machine's files.
	for from, to := range map[string]string{"bin": "usr/bin", "prog": "/bin/prog"} {
		if err := os.Symlink(to, filepath.Join(tree, from)); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(sh)
	if err == nil {
		err = os.MkdirAll(filepath.Join(tree, "usr/bin"), 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(tree, "usr/bin/prog"), b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	d := newDistillery(tree)
	if err := d.add("/prog"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a program without its libraries was distilled: %v", err)
	}
	whole := newDistillery("/")
	if err := whole.add(sh); err != nil {
		t.Fatal(err)
	}
	layer, err := whole.pack()
	if err != nil {
		t.Fatal(err)
	}
	again, err := whole.pack()
	if err != nil || !bytes.Equal(layer, again) {
		t.Errorf("packing twice gives different layers (%v)", err)
	}
	names := tarNames(t, layer)
	if !slices.ContainsFunc(names, func(n string) bool { return strings.Contains(n, "libc.so") }) ||
		!slices.ContainsFunc(names, func(n string) bool { return strings.Contains(n, "ld-linux") }) {
		t.Errorf("no C library or linker among %v", names)
	}
	for _, n := range []string{"prog", "bin", "usr/bin"} {
		if _, ok := d.have["/"+n]; !ok {
			t.Errorf("%s is not there", n)
		}
	}
}

func tarNames(t *testing.T, b []byte) []string {
	t.Helper()
	var names []string
	r := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}

func TestNamesOfTheTestbed(t *testing.T) {
	hub := netip.MustParseAddr("10.88.7.2")
	for name, want := range map[string]string{
		"hub": "10.88.7.2", "machine": "10.88.7.1", "h1": "10.88.7.11", "h12": "10.88.7.22",
		"registry-1.docker.io": "10.88.7.2", "h0": "", "h01": "", "h999": "", "example.com": "",
	} {
		got, ok := testbedName(name, []netip.Addr{hub})
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%s is %v, not %s", name, got, want)
		}
	}
}

// answers records what a DNS handler writes.
type answers struct {
	dns.ResponseWriter
	last *dns.Msg
}

func (a *answers) WriteMsg(m *dns.Msg) error {
	a.last = m
	return nil
}

func TestDNSRefusesAtOnceWhatIsNowhere(t *testing.T) {
	hub := netip.MustParseAddr("10.88.7.2")
	for _, c := range []struct {
		name    string
		kind    uint16
		code    int
		answers int
	}{
		{"H1.", dns.TypeA, dns.RcodeSuccess, 1},
		{"h1.", dns.TypeAAAA, dns.RcodeSuccess, 0},
		{"example.com.", dns.TypeA, dns.RcodeNameError, 0},
	} {
		var w answers
		answerDNS(&w, new(dns.Msg).SetQuestion(c.name, c.kind), []netip.Addr{hub})
		if w.last.Rcode != c.code || len(w.last.Answer) != c.answers {
			t.Errorf("%s %d: %v", c.name, c.kind, w.last)
		}
	}
}
