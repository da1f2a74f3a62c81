package connect

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// hostKeys checks SSH servers against known_hosts. It never writes there.
type hostKeys struct {
	target  sshTarget
	files   []string // those that are there
	advised string   // the file to tell the user to add to
	verify  ssh.HostKeyCallback
	only    ssh.PublicKey // what must be shown; nil leaves it to the files

	// mu guards the following fields, what the last refusal was about.
	mu      sync.Mutex
	refused error
	key     ssh.PublicKey
}

func loadHostKeys(name string, t sshTarget, o Options) (*hostKeys, *Error) {
	if o.HostKey != nil {
		return &hostKeys{target: t, only: o.HostKey, verify: ssh.FixedHostKey(o.HostKey)}, nil
	}
	var files []string
	switch {
	case o.KnownHosts != "":
		files = []string{o.KnownHosts}
	case len(t.knownHosts) > 0:
		files = t.knownHosts
	default:
		files = []string{filepath.Join(o.Home, ".ssh", "known_hosts"), "/etc/ssh/ssh_known_hosts"}
	}
	h := &hostKeys{target: t, advised: files[0]}
	for _, f := range files {
		if st, err := os.Stat(f); err == nil && st.Mode().IsRegular() {
			h.files = append(h.files, f)
		}
	}
	verify, err := knownhosts.New(h.files...)
	if err != nil {
		return nil, &Error{
			Kind: Credentials, Endpoint: name, Err: err,
			Text:   "SSH host keys cannot be read: " + err.Error(),
			Remedy: "correct that line",
		}
	}
	h.verify = verify
	return h, nil
}

func (h *hostKeys) check(address string, remote net.Addr, key ssh.PublicKey) error {
	err := h.verify(address, remote, key)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refused, h.key = err, key
	return err
}

// algorithms are those of the keys known for the target: a server with
// several keys must show one that is known. Nil, when none is, means any.
func (h *hostKeys) algorithms() []string {
	if h.only != nil {
		return algorithmsOf(h.only)
	}
	// A key that nobody has brings out what the file holds.
	probe, err := ssh.NewPublicKey(ed25519.PublicKey(make([]byte, ed25519.PublicKeySize)))
	if err != nil {
		return nil
	}
	var mismatch *knownhosts.KeyError
	address := net.JoinHostPort(h.target.host, h.target.port)
	if !errors.As(h.verify(address, &net.TCPAddr{IP: net.IPv4zero}, probe), &mismatch) {
		return nil
	}
	var out []string
	for _, k := range mismatch.Want {
		out = append(out, algorithmsOf(k.Key)...)
	}
	return out
}

// algorithmsOf are the signatures that a server can make with a key.
func algorithmsOf(key ssh.PublicKey) []string {
	if t := key.Type(); t != ssh.KeyAlgoRSA {
		return []string{t}
	}
	return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
}

// refusal explains the last key that was refused; nil when none was.
func (h *hostKeys) refusal(name string) *Error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refused == nil {
		return nil
	}
	shown := fmt.Sprintf("%s key %s", h.key.Type(), ssh.FingerprintSHA256(h.key))
	port := ""
	if h.target.port != "22" {
		port = "-p " + h.target.port + " "
	}
	var mismatch *knownhosts.KeyError
	var revoked *knownhosts.RevokedError
	switch {
	case h.only != nil:
		return &Error{
			Kind: HostKeyChanged, Endpoint: name,
			Text: fmt.Sprintf("the SSH server shows the %s, but the %s key %s is what it must have: the machine was made anew, or somebody is in between",
				shown, h.only.Type(), ssh.FingerprintSHA256(h.only)),
			Remedy: "if it was made anew, give its new host key",
		}
	case errors.As(h.refused, &revoked):
		return &Error{
			Kind: HostKeyChanged, Endpoint: name,
			Text:   fmt.Sprintf("the SSH server shows the %s, which %s revokes", shown, revoked.Revoked.Filename),
			Remedy: "do not connect; ask whoever runs the machine",
		}
	case errors.As(h.refused, &mismatch) && len(mismatch.Want) > 0:
		known := mismatch.Want[0]
		return &Error{
			Kind: HostKeyChanged, Endpoint: name,
			Text: fmt.Sprintf("the SSH server shows the %s, but %s line %d has the %s key %s: the machine was made anew, or somebody is in between",
				shown, known.Filename, known.Line, known.Key.Type(), ssh.FingerprintSHA256(known.Key)),
			Remedy: fmt.Sprintf("if it was made anew, forget the old key and learn the new one:\n  ssh-keygen -R '%s' -f %s\n  ssh-keyscan %s%s >> %s",
				knownhosts.Normalize(net.JoinHostPort(h.target.host, h.target.port)), known.Filename, port, h.target.host, known.Filename),
		}
	default:
		where := strings.Join(h.files, " and ")
		if where == "" {
			where = h.advised + ", which does not exist"
		}
		return &Error{
			Kind: HostKeyUnknown, Endpoint: name,
			Text: fmt.Sprintf("the SSH server shows the %s, which is not in %s", shown, where),
			Remedy: fmt.Sprintf("compare it with the machine's own (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub there), then\n  ssh-keyscan %s%s >> %s\nor answer yes to  ssh %s",
				port, h.target.host, h.advised, h.target.command()),
		}
	}
}
