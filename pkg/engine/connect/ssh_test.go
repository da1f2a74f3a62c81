package connect

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"
	"gotest.tools/v3/assert"
)

// sshd is a real SSH server on loopback that forwards sockets, as OpenSSH's
// does; where it says yes or no is up to the test.
type sshd struct {
	address string
	hostKey ssh.Signer
	// allowed is the user's key, and user the name it goes with.
	allowed ssh.PublicKey
	user    string
	// sockets maps what is asked for to what is connected to; a path that is
	// not there is refused with reject.
	sockets map[string]string
	reject  ssh.RejectionReason
	// look is what the machine says about its socket.
	look string

	// mu guards conns.
	mu    sync.Mutex
	conns []*ssh.ServerConn
}

func newKey(t *testing.T) (ssh.Signer, ed25519.PrivateKey) {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	assert.NilError(t, err)
	s, err := ssh.NewSignerFromKey(k)
	assert.NilError(t, err)
	return s, k
}

func (s *sshd) start(t *testing.T) {
	t.Helper()
	s.hostKey, _ = newKey(t)
	cfg := &ssh.ServerConfig{PublicKeyCallback: func(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if s.allowed != nil && string(key.Marshal()) == string(s.allowed.Marshal()) && (s.user == "" || c.User() == s.user) {
			return nil, nil
		}
		return nil, errors.New("not allowed")
	}}
	cfg.AddHostKey(s.hostKey)
	l := listen(t, "tcp", "127.0.0.1:0")
	s.address = l.Addr().String()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { s.serve(c, cfg) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close() // ends the loop
		s.hangUp()
		wg.Wait()
	})
}

// hangUp breaks every connection.
func (s *sshd) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		_ = c.Close() // may be closed already
	}
	s.conns = nil
}

func (s *sshd) serve(c net.Conn, cfg *ssh.ServerConfig) {
	conn, chans, reqs, err := ssh.NewServerConn(c, cfg)
	if err != nil {
		_ = c.Close() // the client was refused
		return
	}
	s.mu.Lock()
	s.conns = append(s.conns, conn)
	s.mu.Unlock()
	go ssh.DiscardRequests(reqs)
	for ch := range chans {
		switch ch.ChannelType() {
		case "direct-streamlocal@openssh.com":
			var m struct {
				Path     string
				Reserved string
				Port     uint32
			}
			if err := ssh.Unmarshal(ch.ExtraData(), &m); err != nil {
				_ = ch.Reject(ssh.ConnectionFailed, err.Error()) // it is the client's error
				continue
			}
			go s.forward(ch, m.Path)
		case "session":
			go s.session(ch)
		default:
			_ = ch.Reject(ssh.UnknownChannelType, "") // as above
		}
	}
}

func (s *sshd) forward(ch ssh.NewChannel, path string) {
	to, ok := s.sockets[path]
	if !ok {
		_ = ch.Reject(s.reject, "open failed") // as OpenSSH
		return
	}
	out, err := net.Dial("unix", to)
	if err != nil {
		_ = ch.Reject(ssh.ConnectionFailed, "open failed") // as OpenSSH
		return
	}
	in, reqs, err := ch.Accept()
	if err != nil {
		return
	}
	go ssh.DiscardRequests(reqs)
	go func() {
		_, _ = io.Copy(out, in) // ends with either side
		_ = out.Close()         // as above
	}()
	_, _ = io.Copy(in, out) // as above
	_ = in.Close()          // as above
}

func (s *sshd) session(ch ssh.NewChannel) {
	in, reqs, err := ch.Accept()
	if err != nil {
		return
	}
	for r := range reqs {
		_ = r.Reply(r.Type == "exec", nil) // the client may be gone
		if r.Type == "exec" {
			_, _ = io.WriteString(in, s.look+"\n")                                            // as above
			_, _ = in.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{})) // as above
			_ = in.Close()                                                                    // as above
		}
	}
}

// person is a user with a home directory, a key and a known_hosts.
type person struct {
	home string
	key  ed25519.PrivateKey
	o    Options
	env  map[string]string
}

func newUser(t *testing.T, s *sshd) *person {
	t.Helper()
	u := &person{env: map[string]string{"USER": "nobody"}}
	u.o = options(t, u.env)
	u.home = u.o.Home
	assert.NilError(t, os.Mkdir(filepath.Join(u.home, ".ssh"), 0o700))
	var signer ssh.Signer
	signer, u.key = newKey(t)
	s.allowed = signer.PublicKey()
	return u
}

func (u *person) write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(u.home, ".ssh", name)
	assert.NilError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func (u *person) writeKey(t *testing.T, name string) string {
	t.Helper()
	b, err := ssh.MarshalPrivateKey(u.key, "")
	assert.NilError(t, err)
	return u.write(t, name, string(pem.EncodeToMemory(b)))
}

func (u *person) knows(t *testing.T, s *sshd) string {
	t.Helper()
	return u.write(t, "known_hosts", knownhosts.Line([]string{s.address}, s.hostKey.PublicKey())+"\n")
}

// world is a user, a machine with sshd, and an engine on it.
func world(t *testing.T) (*person, *sshd) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "d.sock")
	serve(t, listen(t, "unix", path), answers("1.51"))
	s := &sshd{user: "root", sockets: map[string]string{DefaultSocket: path, "/run/other.sock": path}, reject: ssh.ConnectionFailed}
	s.start(t)
	u := newUser(t, s)
	u.knows(t, s)
	return u, s
}

func TestEngineOverSSH(t *testing.T) {
	u, s := world(t)
	u.writeKey(t, "id_ed25519")
	c := opened(t, "ssh://root@"+s.address, u.o)
	assert.Equal(t, c.Host, "127.0.0.1")
	assert.Equal(t, c.Endpoint, "ssh://root@"+s.address)
	opened(t, "ssh://root@"+s.address+"/run/other.sock", u.o)
}

func TestABrokenSSHConnectionIsMadeAgain(t *testing.T) {
	u, s := world(t)
	u.writeKey(t, "id_ed25519")
	c := opened(t, "ssh://root@"+s.address, u.o)
	s.hangUp()
	var err error
	for range 50 { // the break must be noticed first
		if _, err = c.Client.Ping(t.Context(), client.PingOptions{}); err == nil {
			break
		}
	}
	assert.NilError(t, err)
	assert.NilError(t, c.Close())
	_, err = c.Client.Ping(t.Context(), client.PingOptions{})
	assert.ErrorContains(t, err, "closed")
}

func TestKeysComeFromWhereOpenSSHLooks(t *testing.T) {
	config := func(s *sshd) string {
		host, port, _ := net.SplitHostPort(s.address)
		return fmt.Sprintf("Host box\n  HostName %s\n  Port %s\n  User root\n  IdentityFile ~/.ssh/%%r_key\n", host, port)
	}
	for name, tc := range map[string]struct {
		prepare  func(t *testing.T, u *person, s *sshd)
		endpoint string
	}{
		"usual file": {func(t *testing.T, u *person, _ *sshd) { u.writeKey(t, "id_ed25519") }, ""},
		"option":     {func(t *testing.T, u *person, _ *sshd) { u.o.Identity = u.writeKey(t, "k") }, ""},
		"variable":   {func(t *testing.T, u *person, _ *sshd) { u.env[EnvIdentity] = u.writeKey(t, "k") }, ""},
		"config": {func(t *testing.T, u *person, s *sshd) {
			u.writeKey(t, "root_key")
			u.write(t, "config", config(s))
		}, "ssh://box"},
		"agent": {func(t *testing.T, u *person, _ *sshd) { u.env["SSH_AUTH_SOCK"] = u.agent(t) }, ""},
		"agent, for a file with a passphrase": {func(t *testing.T, u *person, s *sshd) {
			b, err := ssh.MarshalPrivateKeyWithPassphrase(u.key, "", []byte("secret"))
			assert.NilError(t, err)
			u.write(t, "root_key", string(pem.EncodeToMemory(b)))
			u.write(t, "config", config(s)+"  IdentitiesOnly yes\n")
			u.env["SSH_AUTH_SOCK"] = u.agent(t)
		}, "ssh://box"},
		"option, past a config that cannot be read": {func(t *testing.T, u *person, _ *sshd) {
			u.o.Identity = u.writeKey(t, "k")
			u.write(t, "config", "Match exec \"x\"\n")
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			u, s := world(t)
			tc.prepare(t, u, s)
			if tc.endpoint == "" {
				tc.endpoint = "ssh://root@" + s.address
			}
			opened(t, tc.endpoint, u.o)
		})
	}
}

// agent starts an ssh-agent that holds the user's key.
func (u *person) agent(t *testing.T) string {
	t.Helper()
	ring := agent.NewKeyring()
	assert.NilError(t, ring.Add(agent.AddedKey{PrivateKey: u.key}))
	path := filepath.Join(t.TempDir(), "agent")
	l := listen(t, "unix", path)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _ = agent.ServeAgent(ring, c) }() // ends with the connection
		}
	}()
	return path
}

func TestKeysThatOpenNothingAreNamed(t *testing.T) {
	u, s := world(t)
	refused(t, "ssh://root@"+s.address, u.o, SSHAuth, "none of these keys: there are none", "--ssh-identity")
	path := u.writeKey(t, "id_ed25519")
	refused(t, "ssh://guest@"+s.address, u.o, SSHAuth, "lets guest in with none of these keys: "+path, "-p")
	u.o.Identity = filepath.Join(u.home, "none")
	refused(t, "ssh://root@"+s.address, u.o, SSHAuth, "none (no such file or directory)")
	b, err := ssh.MarshalPrivateKeyWithPassphrase(u.key, "", []byte("secret"))
	assert.NilError(t, err)
	u.o.Identity = u.write(t, "locked", string(pem.EncodeToMemory(b)))
	refused(t, "ssh://root@"+s.address, u.o, SSHAuth, "has a passphrase: ssh-add it")
	u.o.Identity = u.write(t, "text", "hello")
	refused(t, "ssh://root@"+s.address, u.o, SSHAuth, "no key found")
}

func TestHostKeysMustBeKnown(t *testing.T) {
	u, s := world(t)
	u.writeKey(t, "id_ed25519")
	endpoint := "ssh://root@" + s.address
	host, port, err := net.SplitHostPort(s.address)
	assert.NilError(t, err)
	known := filepath.Join(u.home, ".ssh", "known_hosts")
	shown := ssh.FingerprintSHA256(s.hostKey.PublicKey())
	stranger, _ := newKey(t)
	scan := fmt.Sprintf("ssh-keyscan -p %s %s >> %s", port, host, known)

	assert.NilError(t, os.Remove(known))
	refused(t, endpoint, u.o, HostKeyUnknown, shown, "does not exist", scan, "ssh -p "+port+" root@"+host)
	u.write(t, "known_hosts", knownhosts.Line([]string{"other.example"}, stranger.PublicKey())+"\n")
	refused(t, endpoint, u.o, HostKeyUnknown, shown, "not in "+known)
	u.write(t, "known_hosts", knownhosts.Line([]string{s.address}, stranger.PublicKey())+"\n")
	refused(t, endpoint, u.o, HostKeyChanged, shown, "line 1", ssh.FingerprintSHA256(stranger.PublicKey()), "somebody is in between", "ssh-keygen -R '["+host+"]:"+port+"'")
	u.write(t, "known_hosts", "@revoked * "+string(ssh.MarshalAuthorizedKey(s.hostKey.PublicKey())))
	refused(t, endpoint, u.o, HostKeyChanged, "revokes", "do not connect")
	u.write(t, "known_hosts", "not a line\n")
	refused(t, endpoint, u.o, Credentials, "known_hosts")
	assert.Assert(t, !strings.Contains(read(t, known), "ed25519"), "nothing is ever added to known_hosts")

	// Names may be hashed.
	u.write(t, "known_hosts", knownhosts.Line([]string{knownhosts.HashHostname(knownhosts.Normalize(s.address))}, s.hostKey.PublicKey())+"\n")
	opened(t, endpoint, u.o)

	// The option and the variable name other files.
	assert.NilError(t, os.Remove(known))
	elsewhere := u.write(t, "elsewhere", knownhosts.Line([]string{s.address}, s.hostKey.PublicKey())+"\n")
	refused(t, endpoint, u.o, HostKeyUnknown)
	u.env[EnvKnownHosts] = elsewhere
	opened(t, endpoint, u.o)
	delete(u.env, EnvKnownHosts)
	u.write(t, "config", "UserKnownHostsFile ~/.ssh/elsewhere\n")
	opened(t, endpoint, u.o)
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	assert.NilError(t, err)
	return string(b)
}

func TestAMachineWithoutAnEngineIsNotAMachineThatRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		look   string
		reject ssh.RejectionReason
		kind   Kind
		text   string
	}{
		"no socket":        {"missing", ssh.ConnectionFailed, NoEngine, "there is no /var/run/docker.sock there"},
		"not running":      {"", ssh.ConnectionFailed, NoEngine, "systemctl start docker"},
		"not for the user": {"denied", ssh.ConnectionFailed, Permission, "group docker"},
		"no forwarding":    {"", ssh.Prohibited, Forbidden, "AllowStreamLocalForwarding"},
	} {
		t.Run(name, func(t *testing.T) {
			u, s := world(t)
			u.writeKey(t, "id_ed25519")
			s.sockets, s.look, s.reject = nil, tc.look, tc.reject
			refused(t, "ssh://root@"+s.address, u.o, tc.kind, tc.text)
		})
	}
}

func TestWhatIsNoSSHServer(t *testing.T) {
	u, s := world(t)
	u.writeKey(t, "id_ed25519")
	web := listen(t, "tcp", "127.0.0.1:0")
	serve(t, web, answers("1.51"))
	refused(t, "ssh://root@"+web.Addr().String(), u.o, NotSSH, "no SSH server that can be talked to")
	silent := listen(t, "tcp", "127.0.0.1:0")
	u.o.Timeout = 200 * time.Millisecond
	refused(t, "ssh://root@"+silent.Addr().String(), u.o, Timeout, "does not answer")
	gone := listen(t, "tcp", "127.0.0.1:0")
	assert.NilError(t, gone.Close())
	refused(t, "ssh://root@"+gone.Addr().String(), u.o, Refused, "is sshd running there")
	u.write(t, "config", "Host jump\n  ProxyJump bastion\n")
	refused(t, "ssh://jump", u.o, Invalid, "ProxyJump", "ssh -L")
	u.write(t, "config", "Match exec \"x\"\n")
	refused(t, "ssh://root@"+s.address, u.o, Credentials, "~/.ssh/config")
}
