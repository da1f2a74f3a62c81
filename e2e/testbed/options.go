package testbed

import (
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"regexp"
)

// DefaultName is the name of a testbed that was given none.
const DefaultName = "default"

// DirEnv names the variable that moves the directory all testbeds and caches
// live in.
const DirEnv = "CLOCKER_TESTBED_DIR"

const defaultDir = "/var/tmp/clocker-testbed"

// Options say what testbed Up makes.
type Options struct {
	// Name tells testbeds of one machine apart. Lower-case letters, digits and
	// dashes, at most 24; "" is DefaultName.
	Name string
	// Hosts is how many hosts there are: h1, h2, ... 0 is 1.
	Hosts int
	// Bare is how many more hosts there are after those that have no engine: a
	// Debian with sshd, whose apt can install docker.io.
	Bare int
	// Engine is the major version of the hosts' Docker Engine: "28" (the
	// default) or "20".
	Engine string
	// Links is how many links the hosts are on: with 1 (the default) all are on
	// one; with 2, h1, h3, ... are on the first, h2, h4, ... on the second, and
	// the hub is the router between the two.
	Links int
	// Log is told of every step. Nil is silence.
	Log func(format string, args ...any)
}

// MaxHosts is what one subnet of a testbed holds, with the testbed's own
// addresses taken away.
const MaxHosts = 200

var validName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,23}$`)

var errNotRoot = errors.New("testbed: needs root: namespaces, mounts and links are made")

func (o Options) withDefaults() (Options, error) {
	if o.Name == "" {
		o.Name = DefaultName
	}
	if o.Hosts == 0 {
		o.Hosts = 1
	}
	if o.Engine == "" {
		o.Engine = "28"
	}
	if o.Links == 0 {
		o.Links = 1
	}
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	if !validName.MatchString(o.Name) {
		return o, fmt.Errorf("check name: %q is not %s", o.Name, validName)
	}
	if o.Hosts < 1 || o.Bare < 0 || o.Hosts+o.Bare > MaxHosts {
		return o, fmt.Errorf("check hosts: %d and %d bare ones are not within 1 to %d", o.Hosts, o.Bare, MaxHosts)
	}
	if _, ok := hostTrees[o.Engine]; !ok {
		return o, fmt.Errorf("check engine: %q is neither 28 nor 20", o.Engine)
	}
	if o.Links < 1 || o.Links > 2 {
		return o, fmt.Errorf("check links: %d is neither 1 nor 2", o.Links)
	}
	if os.Geteuid() != 0 {
		return o, errNotRoot
	}
	return o, nil
}

// baseDir holds caches and testbeds. Its path is kept short by intent: unix
// sockets below it have 108 characters.
func baseDir() string {
	if d := os.Getenv(DirEnv); d != "" {
		return d
	}
	return defaultDir
}

func cacheDir() string { return filepath.Join(baseDir(), "cache") }

func stateDir(name string) string { return filepath.Join(baseDir(), "beds", name) }

// globalName is the testbed's name where the whole machine shares names: links
// and cgroups. A testbed in another base directory is another testbed.
func globalName(name string) string {
	base := baseDir()
	if base == defaultDir {
		return name
	}
	return fmt.Sprintf("%s-%04x", name, checksum(base))
}

// linkName is the machine's end of the veth pair to the hub. A name too long
// for a link is cut and told apart by a checksum.
func linkName(name string) string {
	const prefix, limit = "ctb-", 15
	name = globalName(name)
	if len(prefix)+len(name) <= limit {
		return prefix + name
	}
	return fmt.Sprintf("%s%s-%04x", prefix, name[:6], checksum(name))
}

func checksum(s string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(s))
	return h.Sum32() & 0xffff
}
