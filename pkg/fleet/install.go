package fleet

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"

	"clocker.io/clocker/pkg/fleet/sshhost"
)

// EngineSource says where a machine takes a Docker Engine from. The zero value
// is the distribution's own package.
type EngineSource struct {
	// Repository is a line of sources.list ("deb [options] URL SUITE
	// COMPONENT") or only the URL of a repository that has the
	// distribution's code name as suite and "stable" as component. Its
	// docker-ce is taken when it has that, else its docker.io.
	Repository string
	// Key is the OpenPGP key that signs the repository, armored or binary;
	// empty leaves it to the line (signed-by, trusted) and to the machine.
	Key []byte
}

//go:embed install_look.sh
var lookScript string

//go:embed install_engine.sh
var installScript string

// installation is one installation of an engine.
type installation struct {
	m       *sshhost.Machine
	source  EngineSource
	report  func(Progress)
	subject string
	bare    bare
	script  string
}

func (i *installation) say(st State, format string, args ...any) {
	i.report(Progress{Subject: i.subject, Step: StepEngine, State: st, Text: fmt.Sprintf(format, args...)})
}

// look finds out what the machine is, and everything that speaks against an
// engine on it, as [*Problems].
func (i *installation) look(ctx context.Context) error {
	out, _, err := i.m.Run(ctx, "sh -c "+quote(lookScript), nil)
	if err != nil {
		return fmt.Errorf("look at machine: %w", err)
	}
	i.bare = parseBare(string(out))
	var problems []string
	if i.script, problems = i.bare.plan(i.source, i.m.User()); len(problems) > 0 {
		return &Problems{Subject: i.subject, List: problems}
	}
	return nil
}

// run installs the engine, on a machine that was looked at, and starts it.
// again says that the connection must be made anew for the user's new rights.
func (i *installation) run(ctx context.Context) (again bool, err error) {
	b := i.bare
	i.say(Doing, "installing Docker Engine on %s", b.name())
	w := &installLines{say: i.say}
	command := "sh -c " + quote(i.script)
	if !b.root() {
		command = "sudo -n " + command
	}
	var errOut bytes.Buffer
	err = i.m.Stream(ctx, command, bytes.NewReader(i.source.Key), w, &errOut)
	var exit *ssh.ExitError
	switch {
	case errors.As(err, &exit):
		words := strings.TrimSpace(w.last() + "\n" + strings.TrimSpace(errOut.String()))
		return false, fmt.Errorf("install Docker Engine on %s: exit %d: %s\nthe whole of it is there in %s; add the host again when it is put right: it goes on from there",
			i.subject, exit.ExitStatus(), words, installLog)
	case err != nil:
		return false, fmt.Errorf("install Docker Engine on %s: %w: what was begun there goes on; add the host again", i.subject, err)
	}
	i.say(Done, "Docker Engine installed")
	return !b.root(), nil
}

// installLog is where a machine keeps what the last installation wrote.
const installLog = "/var/log/clocker-engine.log"

// installLines turns the output of an installation into progress.
type installLines struct {
	say     func(st State, format string, args ...any)
	partial []byte
	tail    []string
}

// Write implements [io.Writer].
func (w *installLines) Write(b []byte) (int, error) {
	w.partial = append(w.partial, b...)
	for {
		i := bytes.IndexByte(w.partial, '\n')
		if i < 0 {
			return len(b), nil
		}
		w.line(strings.TrimSpace(string(w.partial[:i])))
		w.partial = w.partial[i+1:]
	}
}

func (w *installLines) line(s string) {
	if s == "" {
		return
	}
	if w.tail = append(w.tail, s); len(w.tail) > 8 {
		w.tail = w.tail[1:]
	}
	if text, ok := strings.CutPrefix(s, "clocker: "); ok {
		w.say(Doing, "%s", text)
		return
	}
	for _, verb := range []string{"Get:", "Unpacking ", "Setting up "} {
		if strings.HasPrefix(s, verb) {
			w.say(Doing, "%s", strings.ToLower(s[:1])+s[1:])
		}
	}
}

func (w *installLines) last() string { return strings.Join(w.tail, "\n") }

// quote makes a text one word of a POSIX shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
