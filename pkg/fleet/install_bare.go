package fleet

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The least that a machine must have for an engine and an image or two.
const (
	bareDiskKiB   = 1 << 20 // 1 GiB
	bareMemoryKiB = 256 << 10
)

// bare is what is known of a machine without an engine.
type bare struct {
	id, like, codename, pretty, machine string
	uid, sudo                           string
	// identity is the same for one machine under two names.
	identity           string
	apt, ours          bool
	dockerd            string
	freeKiB, memoryKiB int64 // -1 when unknown
	packages           []string
}

// parseBare reads what install_look.sh writes; what it does not know is left
// out.
func parseBare(text string) bare {
	b := bare{freeKiB: -1, memoryKiB: -1}
	number := func(s string) int64 {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return -1
		}
		return n
	}
	for line := range strings.Lines(text) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch k {
		case "id":
			b.id = v
		case "like":
			b.like = v
		case "codename":
			b.codename = v
		case "pretty":
			b.pretty = v
		case "machine":
			b.machine = v
		case "identity":
			b.identity = v
		case "uid":
			b.uid = v
		case "sudo":
			b.sudo = v
		case "apt":
			b.apt = v == "yes"
		case "ours":
			b.ours = v == "yes"
		case "dockerd":
			b.dockerd = v
		case "free":
			b.freeKiB = number(v)
		case "memory":
			b.memoryKiB = number(v)
		case "package":
			b.packages = append(b.packages, v)
		}
	}
	return b
}

func (b bare) root() bool { return b.uid == "0" }

func (b bare) name() string {
	if b.pretty != "" {
		return b.pretty
	}
	return "the machine"
}

var (
	repositoryURL  = regexp.MustCompile(`^(https?|file|copy|mirror\+https?)://?[^\s'"\[\]]+$`)
	repositoryLine = regexp.MustCompile(`^deb (\[[^\]\n'"]*\] )?[^\s'"\[\]]+ [^\s'"]+( [^\s'"]+)*$`)
)

// plan returns the script that installs an engine, or all that speaks against
// it. user is who we are there.
func (b bare) plan(s EngineSource, user string) (script string, problems []string) {
	add := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	like := append(strings.Fields(b.like), b.id)
	if !b.apt || !slices.Contains(like, "debian") && !slices.Contains(like, "ubuntu") {
		add("%s is neither Debian nor Ubuntu, so no engine is installed on it: install Docker Engine 20.10 or later yourself", b.name())
	}
	if !slices.Contains([]string{"x86_64", "aarch64", "arm64"}, b.machine) {
		add("the machine's architecture is %s: amd64 and arm64 are what will do", b.machine)
	}
	switch b.sudo {
	case "none":
		add("user %s is not root and the machine has no sudo: log in as root", user)
	case "password":
		add("sudo asks %s for a password: let it do without (NOPASSWD in /etc/sudoers.d), or log in as root", user)
	}
	if b.dockerd != "" && !b.ours {
		add("a Docker Engine is installed there (%s) and does not answer: start it (systemctl start docker); one that is there is never changed", b.dockerd)
	}
	for _, p := range b.packages {
		add("package %s is in the way of Docker Engine: remove it", p)
	}
	if b.freeKiB >= 0 && b.freeKiB < bareDiskKiB {
		add("%d MiB are free on /var/lib: an engine wants 1 GiB at least", b.freeKiB>>10)
	}
	if b.memoryKiB >= 0 && b.memoryKiB < bareMemoryKiB {
		add("the machine has %d MiB of memory: 256 MiB is the least", b.memoryKiB>>10)
	}
	line, err := s.line(b.codename)
	if err != nil {
		add("%s", err)
	}
	if len(problems) > 0 {
		return "", problems
	}
	if b.root() {
		user = ""
	}
	return fmt.Sprintf("repository=%s\nuser=%s\n", quote(line), quote(user)) + installScript, nil
}

// line is the source's line of sources.list; empty for the distribution's own.
func (s EngineSource) line(codename string) (string, error) {
	switch r := strings.TrimSpace(s.Repository); {
	case r == "":
		return "", nil
	case repositoryURL.MatchString(r):
		if codename == "" {
			return "", fmt.Errorf("the machine does not say its distribution's code name: give the whole line: --install-engine='deb %s SUITE stable'", r)
		}
		return fmt.Sprintf("deb %s %s stable", r, codename), nil
	case repositoryLine.MatchString(r):
		return r, nil
	default:
		return "", fmt.Errorf("%q is no package repository: give its URL, or a line: deb [OPTIONS] URL SUITE COMPONENT", r)
	}
}
