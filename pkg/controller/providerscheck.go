package controller

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"golang.org/x/crypto/ssh"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet"
	"clocker.io/clocker/pkg/fleet/sshhost"
	"clocker.io/clocker/pkg/location"
	"clocker.io/clocker/pkg/record"
)

// providerProblems finds everything that is wrong with a request.
func providerProblems(r api.ProviderRequest) (ps []string) {
	bad := func(format string, a ...any) { ps = append(ps, fmt.Sprintf(format, a...)) }
	if err := fleet.CheckName("provider", r.Name); err != nil {
		bad("%v", err)
	}
	if r.Kind != location.KindBYON && r.Kind != location.KindStandby {
		bad("kind %q is not known: %s is a list of machines reached over SSH, %s one of engines that wait", r.Kind, location.KindBYON, location.KindStandby)
	}
	if r.InstallEngine && r.Kind == location.KindStandby {
		bad("engines of a standby provider are there: --install-engine is for byon")
	}
	if len(r.Machines) == 0 {
		bad("it lists no machine")
	}
	over := map[string]int{}
	seen := map[string]bool{}
	for _, m := range r.Machines {
		name := shown(m.Endpoint)
		if seen[m.Endpoint] {
			bad("machine %s is listed twice", name)
		}
		seen[m.Endpoint] = true
		scheme, why := endpointProblem(r.Kind, m)
		over[scheme]++
		if why != "" {
			bad("machine %s: %s", name, why)
		}
		if m.Name != "" {
			if err := fleet.CheckName("host", m.Name); err != nil {
				bad("machine %s: %v", name, err)
			}
		}
	}
	if over["ssh"] > 0 {
		ps = append(ps, sshKeyProblem(r.SSHKey)...)
	}
	if over["tcp"] > 0 && r.Kind == location.KindStandby {
		ps = append(ps, tlsProblem(r)...)
	}
	return ps
}

// shown is an endpoint without the password that somebody may have put there.
func shown(endpoint string) string {
	if u, err := url.Parse(endpoint); err == nil {
		return u.Redacted()
	}
	return "(an endpoint that cannot be read)"
}

// endpointProblem says what is wrong with one machine of a list, and by what
// it is reached.
func endpointProblem(kind string, m record.ProviderMachine) (scheme, why string) {
	u, err := url.Parse(m.Endpoint)
	if err != nil {
		return "", "it is not ssh://[USER@]HOST[:PORT] or tcp://HOST:PORT"
	}
	switch u.Scheme {
	case "ssh":
		if _, err := sshhost.Parse(m.Endpoint); err != nil {
			return "ssh", err.Error()
		}
		if m.HostKey == "" {
			return "ssh", "its SSH host key is not known: give --ssh-known-hosts FILE, or hostKey in the list"
		}
		if _, err := sshhost.ParseHostKey(m.HostKey); err != nil {
			return "ssh", err.Error()
		}
	case "tcp":
		if kind == location.KindBYON {
			return "tcp", "machines of a byon provider are reached over SSH"
		}
		if u.Port() == "" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" {
			return "tcp", "write tcp://HOST:PORT"
		}
	default:
		return "", "a controller reaches machines at ssh://[USER@]HOST[:PORT] and engines at tcp://HOST:PORT only"
	}
	return u.Scheme, ""
}

func sshKeyProblem(key string) []string {
	if key == "" {
		return []string{"its machines are reached over SSH, and no private key is given: --ssh-identity FILE"}
	}
	_, err := ssh.ParsePrivateKey([]byte(key))
	var locked *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &locked):
		return []string{"the private key has a passphrase, which a controller cannot type: make one without for this provider (ssh-keygen -N '')"}
	case err != nil:
		return []string{"the private key cannot be read: it must be one of OpenSSH's or PEM"}
	}
	return nil
}

func tlsProblem(r api.ProviderRequest) []string {
	if r.CA == "" || r.Cert == "" || r.Key == "" {
		return []string{"its engines are reached over TCP, and TLS is needed for that: --tls-cert-dir DIR with ca.pem, cert.pem and key.pem"}
	}
	var ps []string
	if _, err := tls.X509KeyPair([]byte(r.Cert), []byte(r.Key)); err != nil {
		ps = append(ps, "cert.pem and key.pem are no certificate with its key")
	}
	if !x509.NewCertPool().AppendCertsFromPEM([]byte(r.CA)) {
		ps = append(ps, "ca.pem holds no certificate")
	}
	return ps
}

// providerConflicts finds what the fleet has already.
func (c *Controller) providerConflicts(r api.ProviderRequest) (ps []string) {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	if _, ok := c.cache.providers[r.Name]; ok {
		ps = append(ps, fmt.Sprintf("there is a provider %s already", r.Name))
	}
	for _, m := range r.Machines {
		for _, h := range c.cache.hosts {
			switch {
			case h.Value.Endpoint == m.Endpoint:
				ps = append(ps, fmt.Sprintf("machine %s is host %s already", m.Endpoint, h.Value.Name))
			case h.Value.Name == m.Name:
				ps = append(ps, fmt.Sprintf("machine %s: the fleet has a host called %s already", m.Endpoint, m.Name))
			}
		}
		for _, p := range c.cache.providers {
			for _, o := range p.Value.Machines {
				if o.Endpoint == m.Endpoint {
					ps = append(ps, fmt.Sprintf("machine %s is in the list of provider %s already", m.Endpoint, p.Value.Name))
				}
			}
		}
	}
	return ps
}
