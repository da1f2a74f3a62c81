package preflight

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/hostconfig"
)

// The socket states of /proc/net/{tcp,udp} (include/net/tcp_states.h) that
// mean "waits for anybody".
const (
	tcpListen = "0A"
	udpOpen   = "07"
)

// ParseListening returns the ports, as "tcp/80", on which something listens
// according to the text of /proc/net/tcp or udp or their IPv6 fellows
// (proc_net(5)). Lines that cannot be read are left out.
func ParseListening(text, proto string) []string { return parsePorts(text, proto, false) }

// ParseEverywhere is [ParseListening] for what listens on every address.
func ParseEverywhere(text, proto string) []string { return parsePorts(text, proto, true) }

func parsePorts(text, proto string, everywhere bool) []string {
	want := tcpListen
	if proto == "udp" {
		want = udpOpen
	}
	var out []string
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 4 || f[3] != want {
			continue
		}
		addr, hex, ok := strings.Cut(f[1], ":")
		if !ok || everywhere && strings.Trim(addr, "0") != "" {
			continue
		}
		port, err := strconv.ParseUint(hex, 16, 16)
		if err != nil {
			continue
		}
		out = append(out, proto+"/"+strconv.FormatUint(port, 10))
	}
	return sorted(out)
}

func sorted(s []string) []string {
	slices.Sort(s)
	return slices.Compact(s)
}

// ReadMember reads a machine's membership from its /etc/clocker; nil when it
// belongs to no fleet.
func ReadMember(dir string) (*Member, error) {
	c, err := hostconfig.Load(dir)
	if errors.Is(err, hostconfig.ErrNotAdopted) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m := &Member{Fleet: c.Fleet, HostID: c.HostID, Name: c.Name, Address: c.Address, Etcd: c.Etcd, Controllers: c.Controllers}
	if text, err := os.ReadFile(filepath.Join(dir, c.CAFile)); err == nil {
		// A file that holds no certificate is as good as a missing one.
		m.CA, _ = ca.Fingerprint(text)
	}
	if text, err := os.ReadFile(filepath.Join(dir, c.CertFile)); err == nil {
		if cert, err := ca.ParseCertificate(text); err == nil {
			if _, err := os.Stat(filepath.Join(dir, c.KeyFile)); err == nil {
				m.CertificateUntil = cert.NotAfter
			}
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, AdoptedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return m, fmt.Errorf("read %s: %w", AdoptedFile, err)
	}
	m.Adopted = &Adopted{}
	if err := json.Unmarshal(b, m.Adopted); err != nil {
		m.Adopted = nil // as if it were missing: adoption writes it again
	}
	return m, nil
}
