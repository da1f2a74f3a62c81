package driver

import (
	"errors"
	"log/slog"
	"net"
	"strconv"
	"syscall"
	"testing"

	"gotest.tools/v3/assert"
)

func port(t *testing.T, l net.Addr) uint16 {
	t.Helper()
	_, p, err := net.SplitHostPort(l.String())
	assert.NilError(t, err)
	n, err := strconv.Atoi(p)
	assert.NilError(t, err)
	return uint16(n)
}

func TestHolder(t *testing.T) {
	h := newHolder(slog.New(slog.DiscardHandler))
	ports, err := h.Hold("a", only4, []binding{
		{Proto: 6, Port: 80, HostIP: "127.0.0.1"}, {Proto: 17, Port: 80, HostIP: "127.0.0.1"},
	})
	assert.NilError(t, err)
	assert.Check(t, ports[0].HostPort != 0 && ports[1].HostPort != 0, "any port is a certain one")
	taken := binding{Proto: 6, Port: 80, HostIP: "127.0.0.1", HostPort: ports[0].HostPort}

	_, err = h.Hold("b", only4, []binding{{Proto: 6, Port: 81, HostIP: "127.0.0.1"}, taken})
	assert.Check(t, errors.Is(err, syscall.EADDRINUSE), "%v", err)
	assert.Equal(t, len(h.held["b"]), 0, "all or none")

	c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(ports[0].HostPort))))
	assert.NilError(t, err)
	_, err = c.Read(make([]byte, 1))
	assert.Check(t, err != nil, "who gets here is sent away")
	c.Close()

	h.Release("a")
	got, err := h.Hold("b", only4, []binding{taken})
	assert.NilError(t, err)
	assert.Equal(t, got[0].HostPort, taken.HostPort)

	again := newHolder(slog.New(slog.DiscardHandler))
	again.Restore("b", only4, got)
	assert.Equal(t, len(again.held["b"]), 0, "another process has it")
	h.Release("b")
	again.Restore("b", only4, got)
	assert.Equal(t, len(again.held["b"]), 1)
	again.Release("b")
}

// Of a range the first free port is taken.
func TestHolderTakesFromARange(t *testing.T) {
	first, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	defer first.Close()
	from := port(t, first.Addr())
	h := newHolder(slog.New(slog.DiscardHandler))
	ps, err := h.Hold("a", only4, []binding{{Proto: 6, Port: 80, HostIP: "127.0.0.1", HostPort: from, HostPortEnd: from + 20}})
	assert.NilError(t, err)
	assert.Check(t, ps[0].HostPort > from)
	h.Release("a")
	_, err = h.Hold("a", only4, []binding{{Proto: 6, Port: 80, HostIP: "192.0.2.77", HostPort: 80}})
	assert.ErrorContains(t, err, "publish port 192.0.2.77:80->80/tcp")
	_, err = h.Hold("a", only4, []binding{{Proto: 132, Port: 80}})
	assert.ErrorContains(t, err, "must be named")
	ps, err = h.Hold("a", only4, []binding{{Proto: 17, Port: 53, HostPort: 53}})
	assert.NilError(t, err, "the host's own DNS listens there")
	assert.Equal(t, ps[0].HostPort, uint16(53))
}

var only4, both = families{v4: true}, families{v4: true, v6: true}

// A port is taken in each family that the container has, as far as the host's
// address asks for it.
func TestHolderTakesEachFamily(t *testing.T) {
	h := newHolder(slog.New(slog.DiscardHandler))
	for _, c := range []struct {
		has      families
		at       string
		sockets  int
		problems string
	}{
		{both, "", 2, ""},
		{both, "0.0.0.0", 1, ""},
		{both, "::", 1, ""},
		{both, "::1", 1, ""},
		{families{v6: true}, "", 1, ""},
		{families{v6: true}, "127.0.0.1", 0, "no address of the family of 127.0.0.1"},
		{only4, "::1", 0, "no address of the family of ::1"},
		{both, "fe80::1%eth0", 0, "with a zone"},
	} {
		ps, err := h.Hold("a", c.has, []binding{{Proto: 6, Port: 80, HostIP: c.at}})
		if c.problems != "" {
			assert.ErrorContains(t, err, c.problems)
			continue
		}
		assert.NilError(t, err, c.at)
		assert.Equal(t, len(h.held["a"]), c.sockets, c.at)
		assert.Check(t, ps[0].HostPort != 0)
	}
	h.Release("a")
}
