package connect

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// identities are the user's keys, in the order they are offered: the one that
// was named, else those of ~/.ssh/config, of the agent, and the usual files.
type identities struct {
	target sshTarget
	named  string // --ssh-identity
	socket string // the agent's
	home   string
	given  []ssh.Signer // the only ones offered, when there are any

	// mu guards the following fields.
	mu    sync.Mutex
	agent net.Conn // nil when there is no agent
	// notes say what was offered, or why it could not be.
	notes []string
}

func newIdentities(t sshTarget, o Options) *identities {
	return &identities{target: t, named: o.Identity, socket: o.Getenv("SSH_AUTH_SOCK"), home: o.Home, given: o.Signers}
}

func (i *identities) signers() ([]ssh.Signer, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.notes = nil
	if len(i.given) > 0 {
		for _, s := range i.given {
			i.notes = append(i.notes, s.PublicKey().Type()+" key "+ssh.FingerprintSHA256(s.PublicKey()))
		}
		return i.given, nil
	}
	files := i.target.identityFiles
	if i.named != "" {
		files = []string{i.named}
	}
	held := i.fromAgent()
	var out []ssh.Signer
	seen := map[string]bool{}
	offer := func(s ssh.Signer, from string) {
		id := string(s.PublicKey().Marshal())
		if seen[id] {
			return
		}
		seen[id] = true
		out = append(out, s)
		i.notes = append(i.notes, from)
	}
	for _, f := range files {
		i.fromFile(f, held, offer, true)
	}
	if i.named != "" {
		return out, nil
	}
	if !i.target.identitiesOnly {
		for _, s := range held {
			offer(s, "agent's "+ssh.FingerprintSHA256(s.PublicKey()))
		}
	}
	if len(files) == 0 {
		for _, f := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
			i.fromFile(filepath.Join(i.home, ".ssh", f), held, offer, false)
		}
	}
	return out, nil
}

// fromFile offers the key of a file; one with a passphrase only when the
// agent holds it. A file that was asked for and is missing is noted.
func (i *identities) fromFile(path string, held []ssh.Signer, offer func(ssh.Signer, string), asked bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		if asked {
			i.notes = append(i.notes, fmt.Sprintf("%s (%s)", path, plain(err)))
		}
		return
	}
	s, err := ssh.ParsePrivateKey(b)
	if err == nil {
		offer(s, path)
		return
	}
	var locked *ssh.PassphraseMissingError
	if !errors.As(err, &locked) {
		i.notes = append(i.notes, fmt.Sprintf("%s (%v)", path, err))
		return
	}
	pub := locked.PublicKey
	if pub == nil {
		if b, rerr := os.ReadFile(path + ".pub"); rerr == nil {
			pub, _, _, _, _ = ssh.ParseAuthorizedKey(b) // no public key: no match
		}
	}
	for _, h := range held {
		if pub != nil && string(h.PublicKey().Marshal()) == string(pub.Marshal()) {
			offer(h, path+" (agent)")
			return
		}
	}
	i.notes = append(i.notes, path+" (has a passphrase: ssh-add it)")
}

func (i *identities) fromAgent() []ssh.Signer {
	if i.socket == "" {
		return nil
	}
	if i.agent == nil {
		c, err := net.Dial("unix", i.socket)
		if err != nil {
			i.notes = append(i.notes, "ssh-agent ("+plain(err)+")")
			return nil
		}
		i.agent = c
	}
	s, err := agent.NewClient(i.agent).Signers()
	if err != nil {
		i.notes = append(i.notes, "ssh-agent ("+err.Error()+")")
		return nil
	}
	return s
}

// tried says which keys were offered, and which could not be.
func (i *identities) tried() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.notes) == 0 {
		return "there are none"
	}
	return strings.Join(i.notes, ", ")
}

func (i *identities) close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.agent != nil {
		_ = i.agent.Close() // nothing is under way
		i.agent = nil
	}
}

// plain drops the path that an error of package os repeats.
func plain(err error) string {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}
