package sshhost

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/engine/connect"
)

func TestEndpointsAreReadWhole(t *testing.T) {
	got, err := Parse("ssh://ada@server-1:2222/run/other.sock")
	assert.NilError(t, err)
	assert.DeepEqual(t, got, Target{Endpoint: "ssh://ada@server-1:2222/run/other.sock", User: "ada", Host: "server-1", Port: "2222", Socket: "/run/other.sock"})
	for _, bad := range []string{"", "server-1", "tcp://a", "ssh://", "ssh://a?x", "ssh://a#x", "ssh://[::1", "ssh://u:secret@a"} {
		_, err := Parse(bad)
		assert.ErrorIs(t, err, ErrEndpoint, bad)
		assert.Assert(t, !strings.Contains(err.Error(), "secret"))
	}
}

func newKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	assert.NilError(t, err)
	s, err := ssh.NewSignerFromKey(k)
	assert.NilError(t, err)
	return s
}

// server is an SSH server that runs commands on this machine.
func server(t *testing.T, host ssh.Signer, user ssh.PublicKey) (address string) {
	t.Helper()
	cfg := &ssh.ServerConfig{PublicKeyCallback: func(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if c.User() == "ada" && string(key.Marshal()) == string(user.Marshal()) {
			return nil, nil
		}
		return nil, errors.New("not allowed")
	}}
	cfg.AddHostKey(host)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { serve(c, cfg) })
		}
	})
	return l.Addr().String()
}

func serve(c net.Conn, cfg *ssh.ServerConfig) {
	_, chans, reqs, err := ssh.NewServerConn(c, cfg)
	if err != nil {
		_ = c.Close() // the client was refused
		return
	}
	go ssh.DiscardRequests(reqs)
	for nc := range chans {
		ch, reqs, err := nc.Accept()
		if err != nil {
			continue
		}
		go run(ch, reqs)
	}
}

func run(ch ssh.Channel, reqs <-chan *ssh.Request) {
	defer func() { _ = ch.Close() }() // the client is done
	for r := range reqs {
		if r.Type != "exec" {
			_ = r.Reply(false, nil) // a client that is gone asks nothing
			continue
		}
		_ = r.Reply(true, nil) // as above
		cmd := exec.Command("sh", "-c", string(r.Payload[4:]))
		cmd.Stdin, cmd.Stdout, cmd.Stderr = ch, ch, ch.Stderr()
		status := struct{ Code uint32 }{}
		var exit *exec.ExitError
		if err := cmd.Run(); errors.As(err, &exit) {
			status.Code = uint32(exit.ExitCode()) //nolint:gosec // 0 to 255
		}
		_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(status)) // as above
		return
	}
}

func TestMachineIsReachedByKeysGivenAsValues(t *testing.T) {
	host, user := newKey(t), newKey(t)
	address := server(t, host, user.PublicKey())
	target, err := Parse("ssh://ada@" + address)
	assert.NilError(t, err)
	key := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(host.PublicKey())))
	nowhere := func(string) string { return "" }
	o := Options{Signers: []ssh.Signer{user}, HostKey: key, Home: t.TempDir(), Getenv: nowhere}

	m, err := Dial(t.Context(), target, o)
	assert.NilError(t, err)
	defer func() { _ = m.Close() }() // it was used
	out, errOut, err := m.Run(t.Context(), "cat; echo warned >&2", strings.NewReader("over"))
	assert.NilError(t, err)
	assert.Equal(t, string(out)+"/"+string(errOut), "over/warned\n")
	_, _, err = m.Run(t.Context(), "echo first >&2; echo no such thing >&2; exit 3", nil)
	var exit *ssh.ExitError
	assert.Assert(t, errors.As(err, &exit) && exit.ExitStatus() == 3)
	assert.ErrorContains(t, err, "no such thing")
	ended, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	go func() { _, _ = r.Read(make([]byte, 1)); cancel() }() // the first output ends it
	err = m.Stream(ended, "echo begun; cat", neverEnds{}, w, io.Discard)
	assert.ErrorIs(t, err, context.Canceled)

	for name, tc := range map[string]struct {
		change func(o *Options, t *Target)
		kind   connect.Kind
	}{
		"changed host key": {func(o *Options, _ *Target) { o.HostKey = string(ssh.MarshalAuthorizedKey(newKey(t).PublicKey())) }, connect.HostKeyChanged},
		"unknown host key": {func(o *Options, _ *Target) { o.HostKey = "" }, connect.HostKeyUnknown},
		"no host key":      {func(o *Options, _ *Target) { o.HostKey = "server-1" }, connect.Credentials},
		"wrong key":        {func(o *Options, _ *Target) { o.Signers = []ssh.Signer{newKey(t)} }, connect.SSHAuth},
		"wrong user":       {func(_ *Options, g *Target) { g.Endpoint = "ssh://eve@" + address }, connect.SSHAuth},
		"nobody there":     {func(_ *Options, g *Target) { g.Endpoint = "ssh://ada@127.0.0.1:1" }, connect.Refused},
	} {
		o, g := o, target
		tc.change(&o, &g)
		_, err := Dial(t.Context(), g, o)
		assert.Assert(t, connect.IsKind(err, tc.kind), "%s: %v", name, err)
	}
}

// neverEnds is standard input that nobody closes.
type neverEnds struct{}

func (neverEnds) Read([]byte) (int, error) { select {} }
