package dnsupdate

import (
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// Config says which server and zones to keep names in.
type Config struct {
	// Server is the address and port of the zones' primary server.
	Server string
	// Zone holds the names, fully qualified; Reverse are zones for pointers,
	// such as "208.10.in-addr.arpa.".
	Zone    string
	Reverse []string
	Key     Key
}

// Key is a TSIG key.
type Key struct {
	// Name and Algorithm are fully qualified, Secret is base64.
	Name, Algorithm, Secret string
}

// ParseConfig reads "server=ADDRESS[:PORT],zone=NAME,key-file=FILE" with,
// perhaps, "reverse=ZONE" as often as needed. It reports everything that is
// wrong at once.
func ParseConfig(text string) (Config, error) {
	var c Config
	var errs []error
	for _, part := range strings.Split(text, ",") {
		k, v, _ := strings.Cut(part, "=")
		if v == "" {
			errs = append(errs, fmt.Errorf("%q: write it as KEY=VALUE", part))
			continue
		}
		switch k {
		case "server":
			if _, _, err := net.SplitHostPort(v); err != nil {
				v = net.JoinHostPort(strings.Trim(v, "[]"), "53")
			}
			c.Server = v
		case "zone":
			c.Zone = dns.CanonicalName(v)
		case "reverse":
			c.Reverse = append(c.Reverse, dns.CanonicalName(v))
		case "key-file":
			key, err := readKey(v)
			c.Key = key
			errs = append(errs, err)
		default:
			errs = append(errs, fmt.Errorf("%q is not known: the keys are server, zone, reverse and key-file", k))
		}
	}
	if c.Server == "" || c.Zone == "" {
		errs = append(errs, errors.New("server= and zone= are needed"))
	}
	if c.Key.Name == "" {
		errs = append(errs, errors.New("key-file= is needed: tsig-keygen makes one"))
	}
	for _, z := range append(slices.Clone(c.Reverse), c.Zone) {
		if _, ok := dns.IsDomainName(z); z != "" && !ok {
			errs = append(errs, fmt.Errorf("%q is no zone", z))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Config{}, fmt.Errorf("read DNS update settings: %w", err)
	}
	return c, nil
}

var (
	keyName   = regexp.MustCompile(`key\s+"?([^"\s{]+)"?\s*\{`)
	keyValues = regexp.MustCompile(`(algorithm|secret)\s+"?([^";\s]+)"?\s*;`)
)

// readKey reads a key as tsig-keygen writes it and named.conf has it.
func readKey(file string) (Key, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return Key{}, fmt.Errorf("read key: %w", err)
	}
	name := keyName.FindSubmatch(b)
	k := Key{}
	for _, m := range keyValues.FindAllSubmatch(b, -1) {
		if string(m[1]) == "algorithm" {
			k.Algorithm = dns.CanonicalName(string(m[2]))
		} else {
			k.Secret = string(m[2])
		}
	}
	if name == nil || k.Algorithm == "" || k.Secret == "" {
		return Key{}, fmt.Errorf(`read key: %s is not of the form key "NAME" { algorithm hmac-sha256; secret "..."; };`, file)
	}
	k.Name = dns.CanonicalName(string(name[1]))
	return k, nil
}
