package agent

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/engine"
)

func newHandler(t *testing.T) *httptest.Server {
	t.Helper()
	h := &handler{engine: newMemEngine(), log: slog.New(slog.DiscardHandler), container: func(task string) (engine.Container, bool) {
		return engine.Container{ID: "c-" + task}, task == "t1"
	}}
	s := httptest.NewServer(h.routes())
	t.Cleanup(s.Close)
	return s
}

func TestHandler(t *testing.T) {
	s := newHandler(t)
	for _, c := range []struct{ method, path, body, want string }{
		{"GET", "/healthz", "", "200 ok"},
		{"GET", "/tasks/t1/logs?tail=5", "", "200 log of c-t1, tail 5"},
		{"GET", "/tasks/t2/logs", "", "404 task t2 has no container on this host"},
		{"POST", "/tasks/t1/exec", `{"cmd":["cat"]}`, "426 the connection must be upgraded (Upgrade: tcp)"},
		{"POST", "/tasks/t1/exec", `{}`, "400 no command to run"},
		{"POST", "/tasks/t1/exec", `[`, "400 read request: unexpected EOF"},
		{"POST", "/tasks/t2/exec", `{"cmd":["cat"]}`, "404 task t2 has no container on this host"},
		{"GET", "/tasks/t1/exec/x-1", "", `200 {"running":false,"exitCode":7}`},
		{"POST", "/tasks/t1/exec/x-1/resize?h=1&w=2", "", "204 "},
		{"POST", "/tasks/t1/exec/x-1/resize?h=1", "", `400 resize terminal: strconv.ParseUint: parsing "": invalid syntax`},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, s.URL+c.path, strings.NewReader(c.body))
		assert.NilError(t, err)
		res, err := http.DefaultClient.Do(req)
		assert.NilError(t, err)
		b, err := io.ReadAll(res.Body)
		assert.NilError(t, err)
		_ = res.Body.Close()
		text := strings.TrimSpace(string(b))
		var e api.Error
		if res.StatusCode >= 400 {
			assert.NilError(t, json.Unmarshal(b, &e))
			text = e.Message
		}
		assert.Equal(t, fmt.Sprintf("%d %s", res.StatusCode, text), c.want, "%s %s", c.method, c.path)
	}
}

func TestExecTakesTheConnectionOver(t *testing.T) {
	s := newHandler(t)
	dial := func(body string) (net.Conn, *bufio.Reader, *http.Response) {
		c, err := net.Dial("tcp", s.Listener.Addr().String())
		assert.NilError(t, err)
		_, err = fmt.Fprintf(c, "POST /tasks/t1/exec HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		assert.NilError(t, err)
		r := bufio.NewReader(c)
		res, err := http.ReadResponse(r, nil)
		assert.NilError(t, err)
		return c, r, res
	}
	// The input follows the request at once.
	c, r, res := dial(`{"cmd":["cat"],"stdin":true}`)
	defer func() { _ = c.Close() }()
	assert.Equal(t, res.StatusCode, http.StatusSwitchingProtocols)
	assert.Equal(t, res.Header.Get(api.ExecHeader), "x-c-t1")
	_, err := io.WriteString(c, "hello")
	assert.NilError(t, err)
	assert.NilError(t, c.(*net.TCPConn).CloseWrite())
	b, err := io.ReadAll(r)
	assert.NilError(t, err)
	assert.Equal(t, string(b), "hello")

	c, _, res = dial(`{"cmd":["nonsense"]}`)
	defer func() { _ = c.Close() }()
	assert.Equal(t, res.StatusCode, http.StatusBadRequest)
}
