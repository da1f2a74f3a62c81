package preflight

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/hostconfig"
)

const tcp = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1D38 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 31337 1 0000000000000000 100 0 0 10 0
   1: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 31338 1 0000000000000000 100 0 0 10 0
   2: 0B01580A:0016 0101580A:D431 01 00000000:00000000 02:000A5D6D 00000000     0        0 31339 2 0000000000000000 20 4 29 10 -1
   3: 00000000:1D38 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 31340 1 0000000000000000 100 0 0 10 0
   4: 00000000:ZZZZ 00000000:0000 0A
   5: junk
`

const udp = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  115: 3535FEA9:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 41 2 0000000000000000 0
  116: 0100007F:9C40 0100007F:0035 01 00000000:00000000 00:00000000 00000000     0        0 42 2 0000000000000000 0
`

func TestPortsInUseAreThoseThatWaitForAnybody(t *testing.T) {
	assert.DeepEqual(t, ParseListening(tcp, "tcp"), []string{"tcp/22", "tcp/7480"})
	assert.DeepEqual(t, ParseListening(udp, "udp"), []string{"udp/53"})
	assert.Equal(t, len(ParseListening("", "tcp")), 0)
}

func FuzzParseListening(f *testing.F) {
	f.Add(tcp)
	f.Add(udp)
	f.Fuzz(func(t *testing.T, text string) {
		for _, p := range ParseListening(text, "tcp") {
			n, err := strconv.Atoi(p[len("tcp/"):])
			if err != nil || n < 0 || n > 65535 {
				t.Fatalf("%q is no port", p)
			}
		}
	})
}

func TestThisMachineIsSeenAsItIs(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	defer func() { assert.NilError(t, l.Close()) }()
	f := Gather(context.Background(), "/proc", t.TempDir(), "/dev", time.Now)
	_, port, err := net.SplitHostPort(l.Addr().String())
	assert.NilError(t, err)
	assert.Assert(t, slices.Contains(f.Listening, "tcp/"+port), "%v lacks %s", f.Listening, port)
	name, err := os.Hostname()
	assert.NilError(t, err)
	assert.Equal(t, f.Hostname, name)
	assert.Assert(t, f.Kernel != "")
	assert.Assert(t, f.Member == nil)
	as, err := net.InterfaceAddrs()
	assert.NilError(t, err)
	for _, a := range f.Addresses {
		assert.Assert(t, slices.ContainsFunc(as, func(n net.Addr) bool { return n.String() == a.Address.String() }), "%v", a)
		assert.Assert(t, !a.Address.Addr().IsLoopback())
	}
	_, err = json.Marshal(f)
	assert.NilError(t, err)
}

func TestDeviceIsThereOrNot(t *testing.T) {
	dev := t.TempDir()
	is, err := hasTUN(dev)
	assert.NilError(t, err)
	assert.Check(t, !is)
	assert.NilError(t, os.Mkdir(filepath.Join(dev, "net"), 0o700))
	assert.NilError(t, os.Symlink("/dev/null", filepath.Join(dev, "net", "tun")))
	is, err = hasTUN(dev)
	assert.NilError(t, err)
	assert.Check(t, is, "a character device")
	is, err = hasTUN(filepath.Join(dev, "nowhere"))
	assert.ErrorContains(t, err, "nowhere")
	assert.Check(t, is, "what cannot be known is not denied")
}

func TestMembershipIsReadFromTheMachinesFiles(t *testing.T) {
	dir := t.TempDir()
	m, err := ReadMember(dir)
	assert.NilError(t, err)
	assert.Assert(t, m == nil, "a machine without host.json belongs to no fleet")

	a, err := ca.Create("demo", nil)
	assert.NilError(t, err)
	key, csr, err := ca.NewKey()
	assert.NilError(t, err)
	cert, err := a.IssueHost(csr, "h1", nil)
	assert.NilError(t, err)
	write := func(name string, data []byte) {
		assert.NilError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	host, err := json.Marshal(hostconfig.Config{
		Fleet: "demo", HostID: "h1", Name: "one", Address: "10.0.0.7",
		CAFile: "ca.pem", CertFile: "cert.pem", KeyFile: "key.pem",
	})
	assert.NilError(t, err)
	write("host.json", host)
	m, err = ReadMember(dir)
	assert.NilError(t, err)
	assert.Equal(t, m.Name, "one")
	assert.Equal(t, m.CA, "")
	assert.Assert(t, m.CertificateUntil.IsZero() && m.Adopted == nil)

	write("ca.pem", a.Certificate())
	write("cert.pem", cert)
	m, err = ReadMember(dir)
	assert.NilError(t, err)
	assert.Assert(t, m.CertificateUntil.IsZero(), "a certificate without its key is of no use")

	write("key.pem", key)
	write(AdoptedFile, []byte(`{"pluginID":"p","pluginSum":"s","gatewayBridge":true,"version":"1"}`))
	m, err = ReadMember(dir)
	assert.NilError(t, err)
	want, err := ca.Fingerprint(a.Certificate())
	assert.NilError(t, err)
	assert.Equal(t, m.CA, want)
	assert.Assert(t, time.Until(m.CertificateUntil) > ca.CertificateLifetime-time.Hour)
	assert.DeepEqual(t, m.Adopted, &Adopted{PluginID: "p", PluginSum: "s", GatewayBridge: true, Version: "1"})

	write(AdoptedFile, []byte("{"))
	m, err = ReadMember(dir)
	assert.NilError(t, err)
	assert.Assert(t, m.Adopted == nil, "a record that was cut off is as good as none")
	write("host.json", []byte("{"))
	_, err = ReadMember(dir)
	assert.ErrorContains(t, err, "host configuration")
}
