package fleet

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// debian is what the look at a fit machine says.
const debian = `id=debian
like=
codename=bookworm
pretty=Debian GNU/Linux 12 (bookworm)
identity=1 2
machine=x86_64
uid=0
sudo=root
apt=yes
dockerd=
ours=no
free=50000000
memory=2000000
`

func TestWhatIsInTheWayOfAnEngineIsToldAtOnce(t *testing.T) {
	for name, tc := range map[string]struct {
		with string
		want []string
	}{
		"fit":                  {"", nil},
		"Ubuntu":               {"id=ubuntu\ncodename=noble", nil},
		"a child of Ubuntu":    {"id=linuxmint\nlike=ubuntu debian", nil},
		"sudo":                 {"uid=1000\nsudo=yes", nil},
		"interrupted before":   {"dockerd=/usr/sbin/dockerd\nours=yes", nil},
		"unknown":              {"free=\nmemory=x", nil},
		"another system":       {"id=fedora\napt=no\npretty=Fedora 40", []string{"Fedora 40 is neither Debian nor Ubuntu"}},
		"another processor":    {"machine=armv7l", []string{"armv7l"}},
		"no sudo":              {"uid=1000\nsudo=none", []string{"no sudo"}},
		"sudo with password":   {"uid=1000\nsudo=password", []string{"NOPASSWD"}},
		"an engine is there":   {"dockerd=/usr/bin/dockerd", []string{"never changed"}},
		"a package in the way": {"package=podman-docker", []string{"podman-docker"}},
		"everything":           {"machine=mips\nfree=10\nmemory=10", []string{"mips", "free on /var/lib", "of memory"}},
	} {
		t.Run(name, func(t *testing.T) {
			script, problems := parseBare(debian+tc.with+"\n").plan(EngineSource{}, "ada")
			matches(t, problems, tc.want)
			assert.Equal(t, script != "", len(tc.want) == 0)
		})
	}
}

func TestRepositoriesAreUsedAsTheyAreGiven(t *testing.T) {
	b := parseBare(debian)
	for given, want := range map[string]string{
		"": "", "https://download.docker.com/linux/debian": "deb https://download.docker.com/linux/debian bookworm stable",
		"deb [trusted=yes] file:/srv/debian ./": "deb [trusted=yes] file:/srv/debian ./",
	} {
		line, err := (EngineSource{Repository: given}).line(b.codename)
		assert.NilError(t, err)
		assert.Equal(t, line, want)
	}
	for _, given := range []string{"docker", "deb", "https://a b", "deb x y\nrm -rf /", "ftp:x"} {
		_, problems := b.plan(EngineSource{Repository: given}, "root")
		matches(t, problems, []string{"is no package repository"})
	}
	_, err := (EngineSource{Repository: "https://x.example/debian"}).line("")
	assert.ErrorContains(t, err, "code name")
}

func TestScriptsAreOfTheShellAndHoldNothingOfTheUsers(t *testing.T) {
	b := parseBare(strings.Replace(debian, "uid=0\nsudo=root", "uid=7\nsudo=yes", 1))
	_, problems := b.plan(EngineSource{Repository: "deb [x='] y z"}, "o'hara")
	assert.Equal(t, len(problems), 1, "a quote is no part of an option: %q", problems)
	var script string
	script, problems = b.plan(EngineSource{}, "o'hara; reboot")
	assert.Equal(t, len(problems), 0)
	for _, s := range []string{script, lookScript} {
		cmd := exec.Command("sh", "-n")
		cmd.Stdin = strings.NewReader(s)
		out, err := cmd.CombinedOutput()
		assert.NilError(t, err, "%s", out)
	}
	out, err := exec.Command("sh", "-c", strings.SplitN(script, "\n#", 2)[0]+"\necho \"$user\"").Output()
	assert.NilError(t, err)
	assert.Equal(t, string(out), "o'hara; reboot\n")
}

func TestOutputOfAnInstallationBecomesProgress(t *testing.T) {
	var said []string
	w := &installLines{say: func(_ State, format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }}
	for _, part := range []string{"clocker: fetch", "ing\nReading lists...\nUnpack", "ing docker.io ...\n\nE: no disk\n"} {
		_, err := w.Write([]byte(part))
		assert.NilError(t, err)
	}
	assert.DeepEqual(t, said, []string{"fetching", "unpacking docker.io ..."})
	assert.Assert(t, strings.HasSuffix(w.last(), "E: no disk"))
}
