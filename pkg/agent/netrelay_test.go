package agent

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/engine"
	"clocker.io/clocker/pkg/finding"
	"clocker.io/clocker/pkg/hostview"
	"clocker.io/clocker/pkg/record"
)

// ask sends a request to an agent's handler.
func ask(t *testing.T, s *httptest.Server, method, path string, body, out any) (status int, text string) {
	t.Helper()
	b, err := json.Marshal(body)
	assert.NilError(t, err)
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, bytes.NewReader(b))
	assert.NilError(t, err)
	res, err := http.DefaultClient.Do(req)
	assert.NilError(t, err)
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(res.Body)
	assert.NilError(t, err)
	if res.StatusCode == http.StatusOK && out != nil {
		assert.NilError(t, json.Unmarshal(answer, out), string(answer))
	}
	return res.StatusCode, string(answer)
}

func relay(t *testing.T, e Engine, nets *networks) (*httptest.Server, string) {
	t.Helper()
	dir := t.TempDir()
	h := &handler{engine: e, log: slog.New(slog.DiscardHandler), net: newNetRelay(e, nets, dir, slog.New(slog.DiscardHandler))}
	s := httptest.NewServer(h.routes())
	t.Cleanup(s.Close)
	return s, filepath.Join(dir, hostview.Socket)
}

func TestQuestionsForThePluginAreHandedOn(t *testing.T) {
	e := newMemEngine()
	nets := newNetworks(t.Context(), identity{Fleet: "f", Host: "h1"}, e, nil, func(record.Event) {}, slog.New(slog.DiscardHandler), time.Now)
	s, socket := relay(t, e, nets)
	status, text := ask(t, s, "GET", hostview.AgentPlugin+hostview.PathReport, nil, nil)
	assert.Equal(t, status, http.StatusBadGateway)
	assert.Assert(t, strings.Contains(text, "network plugin of this host does not answer"), text)

	assert.NilError(t, os.MkdirAll(filepath.Dir(socket), 0o700))
	l, err := net.Listen("unix", socket)
	assert.NilError(t, err)
	plugin := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		_ = json.NewEncoder(w).Encode(r.Method + " " + r.URL.Path + " " + string(b))
	})}
	go func() { _ = plugin.Serve(l) }()
	t.Cleanup(func() { _ = plugin.Close() })
	var got string
	status, _ = ask(t, s, "POST", hostview.AgentPlugin+hostview.PathCheck, hostview.CheckRequest{Fix: true}, &got)
	assert.Equal(t, status, http.StatusOK)
	assert.Equal(t, got, `POST /check {"fix":true}`)
	for _, c := range []string{"GET /net/plugin/check", "POST /net/plugin/report", "GET /net/plugin/other", "DELETE /net/networks"} {
		method, path, _ := strings.Cut(c, " ")
		status, _ := ask(t, s, method, path, nil, nil)
		assert.Assert(t, status == http.StatusNotFound || status == http.StatusMethodNotAllowed, "%s: %d", c, status)
	}
}

func TestNetworkFindings(t *testing.T) {
	fleet := []record.Network{{ID: "n1", Name: "front"}, {ID: "n2", Name: "back"}, {ID: "n3", Name: "shop_default", App: "shop"}}
	here := []hostview.EngineNetwork{{ID: "n1", Name: "other"}, {ID: "n9", Name: "old", Containers: []string{"c1"}}, {ID: "n8", Name: "older"}}
	got := networkFindings(fleet, here, map[string]bool{"n1": true, "n2": true})
	var subjects []string
	for _, f := range got {
		subjects = append(subjects, f.Subject)
	}
	assert.DeepEqual(t, subjects, []string{"back", "old", "older", "other"})
	assert.Equal(t, got[0].Text, "the engine does not have this network of the fleet")
	assert.Equal(t, got[1].Hint, "containers are attached to it: c1")
	assert.Equal(t, got[2].Hint, "")
	assert.Equal(t, len(networkFindings(fleet[:1], []hostview.EngineNetwork{{ID: "n1", Name: "front"}}, map[string]bool{"n1": true})), 0)
}

func TestCheckMendsWhatTheAgentHasPutOff(t *testing.T) {
	r := newRig(t)
	r.put(r.store.Keys.Network("n1"), record.Network{ID: "n1", Name: "front", Subnet: "10.208.0.0/20", Gateway: "10.208.0.1"})
	r.start()
	r.hasNetworks("front")
	r.stop() // it would take away what the other one makes below
	id, err := r.engine.Create(t.Context(), engine.ContainerRequest{
		Spec: record.ContainerSpec{Name: "mine", Image: "web:1"}, Networks: []string{"front"}})
	assert.NilError(t, err)
	nets := newNetworks(t.Context(), identity{Fleet: "f", Host: "h1"}, r.engine, nil, func(record.Event) {}, slog.New(slog.DiscardHandler), time.Now)
	nets.recall([]record.Network{{ID: "n1", Name: "front"}, {ID: "n2", Name: "back"}})
	made := record.Network{ID: "n2", Name: "back", Subnet: "10.208.16.0/20", Gateway: "10.208.16.1"}
	nets.kick = func() { _, _ = r.engine.CreateNetwork(t.Context(), made, map[string]string{}) }
	s, _ := relay(t, r.engine, nets)
	var all []hostview.EngineNetwork
	status, text := ask(t, s, "GET", hostview.AgentNetworks, nil, &all)
	assert.Equal(t, status, http.StatusOK, text)
	assert.DeepEqual(t, all, []hostview.EngineNetwork{{ID: "n1", Name: "front", Containers: []string{"mine"}}})
	var found []finding.Finding
	status, text = ask(t, s, "POST", hostview.AgentCheck, hostview.CheckRequest{}, &found)
	assert.Equal(t, status, http.StatusOK, text)
	assert.Equal(t, len(found), 1)
	assert.Assert(t, found[0].Subject == "back" && !found[0].Fixed)
	status, text = ask(t, s, "POST", hostview.AgentCheck, hostview.CheckRequest{Fix: true}, &found)
	assert.Equal(t, status, http.StatusOK, text)
	assert.Assert(t, found[0].Fixed)
	assert.NilError(t, r.engine.Remove(t.Context(), id))
}
