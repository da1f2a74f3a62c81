package api_test

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/api/apitest"
	"clocker.io/clocker/pkg/finding"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/trace"
)

// said is a backend that writes down what it is asked for.
type said struct {
	api.Backend
	calls []string
	led   int
}

func (s *said) note(words ...string) { s.calls = append(s.calls, strings.Join(words, " ")) }

func (s *said) Leader() (http.Handler, error) { s.led++; return nil, nil }

func (s *said) Authorize(_ context.Context, user string, _ *x509.Certificate) (api.Caller, error) {
	return api.Caller{User: user, Role: record.RoleAdmin}, nil
}

func (s *said) Audit(record.AuditEntry) string { return "" }

func (s *said) Trust() string { return "" }

func (s *said) Networks(context.Context) ([]api.Network, error) {
	s.note("networks")
	return []api.Network{{Hosts: 2}}, nil
}

func (s *said) Network(_ context.Context, name string) (api.NetworkDetail, error) {
	s.note("network", name)
	return api.NetworkDetail{}, &api.CallError{Status: 404, Body: api.Error{Message: "there is no network " + name}}
}

func (s *said) CreateNetwork(_ context.Context, r api.NetworkRequest) (api.NetworkChange, error) {
	s.note("create", r.Name)
	return api.NetworkChange{Network: record.Network{ID: "x"}}, nil
}

func (s *said) RemoveNetwork(_ context.Context, name string) (api.NetworkChange, error) {
	s.note("remove", name)
	return api.NetworkChange{}, &api.CallError{Status: 409, Body: api.Error{Message: "in use:", Problems: []string{"on host h1: c"}}}
}

func (s *said) AttachHost(_ context.Context, network, host string) (api.Attachment, error) {
	s.note("attach", network, host)
	return api.Attachment{Addresses: []string{"10.208.0.5"}}, nil
}

func (s *said) DetachHost(_ context.Context, network, host string) error {
	s.note("detach", network, host)
	return nil
}

func (s *said) Rules(context.Context) ([]api.Rule, error) { s.note("rules"); return nil, nil }

func (s *said) AddRule(_ context.Context, r api.RuleRequest) (api.Rule, error) {
	s.note("open", r.From, r.To)
	return api.Rule{ID: "r"}, nil
}

func (s *said) RemoveRule(_ context.Context, id string) error { s.note("close", id); return nil }

func (s *said) Pools(context.Context) ([]api.Pool, error) { s.note("pools"); return nil, nil }

func (s *said) Pool(_ context.Context, name string) (api.PoolDetail, error) {
	s.note("pool", name)
	return api.PoolDetail{}, nil
}

func (s *said) AddPool(_ context.Context, p record.Pool) (api.Pool, error) {
	s.note("add", p.Name)
	return api.Pool{Pool: p}, nil
}

func (s *said) RemovePool(_ context.Context, name string) error { s.note("drop", name); return nil }

func (s *said) CheckPool(_ context.Context, name string) ([]finding.Finding, error) {
	s.note("check", name)
	return nil, nil
}

func (s *said) Doctor(_ context.Context, q api.DoctorRequest) (api.DoctorReport, error) {
	s.note("doctor", strings.Join(q.Hosts, ","))
	return api.DoctorReport{Hosts: q.Hosts}, nil
}

func (s *said) Trace(_ context.Context, q trace.Query) (trace.Result, error) {
	s.note("trace", q.From, q.To)
	return trace.Result{From: q.From}, nil
}

func TestEveryCallAboutNetworksReachesTheController(t *testing.T) {
	b := &said{}
	f := apitest.NewFleet(t)
	c := api.NewClient([]string{f.Serve(api.NewHandler(b, nil, slog.New(slog.DiscardHandler))).URL}, f.TLS())
	t.Cleanup(c.Close)
	ctx := t.Context()
	try := func(err error) {
		t.Helper()
		assert.NilError(t, err)
	}
	all, err := c.Networks(ctx)
	try(err)
	assert.Equal(t, all[0].Hosts, 2)
	_, err = c.Network(ctx, "a/b")
	assert.Assert(t, errors.Is(err, api.ErrNotFound))
	_, err = c.Rules(ctx)
	try(err)
	_, err = c.Pools(ctx)
	try(err)
	_, err = c.Pool(ctx, "p")
	try(err)
	_, err = c.CheckPool(ctx, "p")
	try(err)
	assert.Equal(t, b.led, 0, "reads are served by every controller")
	made, err := c.CreateNetwork(ctx, api.NetworkRequest{Name: "n"})
	try(err)
	assert.Equal(t, made.Network.ID, "x")
	_, err = c.RemoveNetwork(ctx, "n")
	assert.Assert(t, errors.Is(err, api.ErrConflict))
	assert.Error(t, err, "in use:\non host h1: c")
	at, err := c.AttachHost(ctx, "n", "h")
	try(err)
	assert.DeepEqual(t, at.Addresses, []string{"10.208.0.5"})
	try(c.DetachHost(ctx, "n", "h"))
	_, err = c.AddRule(ctx, api.RuleRequest{From: "a", To: "b"})
	try(err)
	try(c.RemoveRule(ctx, "r"))
	_, err = c.AddPool(ctx, record.Pool{Name: "p"})
	try(err)
	try(c.RemovePool(ctx, "p"))
	_, err = c.Doctor(ctx, api.DoctorRequest{Hosts: []string{"h1", "h2"}})
	try(err)
	r, err := c.Trace(ctx, trace.Query{From: "a", To: "b"})
	try(err)
	assert.Equal(t, r.From, "a")
	assert.Equal(t, b.led, 10, "changes, and questions to hosts, by the leader")
	assert.DeepEqual(t, b.calls, []string{
		"networks", "network a/b", "rules", "pools", "pool p", "check p", "create n", "remove n", "attach n h", "detach n h",
		"open a b", "close r", "add p", "drop p", "doctor h1,h2", "trace a b",
	})
}
