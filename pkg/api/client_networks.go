package api

import (
	"context"
	"net/http"
	"net/url"

	"clocker.io/clocker/pkg/finding"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/trace"
)

// Networks lists the fleet's networks by name.
func (c *Client) Networks(ctx context.Context) ([]Network, error) {
	var out []Network
	err := c.get(ctx, "/networks", nil, &out)
	return out, err
}

// Network describes one network; [ErrNotFound] when there is none.
func (c *Client) Network(ctx context.Context, name string) (NetworkDetail, error) {
	var out NetworkDetail
	err := c.get(ctx, networkPath(name), nil, &out)
	return out, err
}

// CreateNetwork makes a network on every host: [ErrInvalid] with everything
// that is wrong at once, [ErrConflict] when name or subnet is taken.
func (c *Client) CreateNetwork(ctx context.Context, r NetworkRequest) (NetworkChange, error) {
	var out NetworkChange
	err := c.unary(ctx, call{method: http.MethodPost, path: "/networks", body: r}, &out)
	return out, err
}

// RemoveNetwork takes a network away from every host: [ErrConflict] while
// containers or machines are on it.
func (c *Client) RemoveNetwork(ctx context.Context, name string) (NetworkChange, error) {
	var out NetworkChange
	err := c.unary(ctx, call{method: http.MethodDelete, path: networkPath(name)}, &out)
	return out, err
}

// AttachHost puts a machine on a network; one that is on it is no error.
func (c *Client) AttachHost(ctx context.Context, network, host string) (Attachment, error) {
	var out Attachment
	err := c.unary(ctx, call{method: http.MethodPut, path: networkPath(network) + hostPath(host)}, &out)
	return out, err
}

// DetachHost takes a machine off a network.
func (c *Client) DetachHost(ctx context.Context, network, host string) error {
	return c.unary(ctx, call{method: http.MethodDelete, path: networkPath(network) + hostPath(host)}, nil)
}

// Rules lists what is open between networks.
func (c *Client) Rules(ctx context.Context) ([]Rule, error) {
	var out []Rule
	err := c.get(ctx, "/rules", nil, &out)
	return out, err
}

// AddRule opens a network to another; a rule that is there is no error.
func (c *Client) AddRule(ctx context.Context, r RuleRequest) (Rule, error) {
	var out Rule
	err := c.unary(ctx, call{method: http.MethodPost, path: "/rules", body: r}, &out)
	return out, err
}

// RemoveRule closes what a rule opened; [ErrNotFound] when there is none.
func (c *Client) RemoveRule(ctx context.Context, id string) error {
	return c.unary(ctx, call{method: http.MethodDelete, path: "/rules/" + url.PathEscape(id)}, nil)
}

// Pools lists the address pools by name.
func (c *Client) Pools(ctx context.Context) ([]Pool, error) {
	var out []Pool
	err := c.get(ctx, "/pools", nil, &out)
	return out, err
}

// Pool describes one pool; [ErrNotFound] when there is none.
func (c *Client) Pool(ctx context.Context, name string) (PoolDetail, error) {
	var out PoolDetail
	err := c.get(ctx, poolPath(name), nil, &out)
	return out, err
}

// AddPool makes a pool: [ErrConflict] when it meets another or a host's route.
func (c *Client) AddPool(ctx context.Context, p record.Pool) (Pool, error) {
	var out Pool
	err := c.unary(ctx, call{method: http.MethodPost, path: "/pools", body: p}, &out)
	return out, err
}

// RemovePool takes a pool away: [ErrConflict] while networks are in it.
func (c *Client) RemovePool(ctx context.Context, name string) error {
	return c.unary(ctx, call{method: http.MethodDelete, path: poolPath(name)}, nil)
}

// CheckPool looks for what is wrong with a pool.
func (c *Client) CheckPool(ctx context.Context, name string) ([]finding.Finding, error) {
	var out []finding.Finding
	err := c.get(ctx, poolPath(name)+"/check", nil, &out)
	return out, err
}

// Doctor compares what is with what must be, on hosts and in etcd.
func (c *Client) Doctor(ctx context.Context, r DoctorRequest) (DoctorReport, error) {
	var out DoctorReport
	err := c.unary(ctx, call{method: http.MethodPost, path: "/doctor", body: r}, &out)
	return out, err
}

// Trace follows a connection across the fleet.
func (c *Client) Trace(ctx context.Context, q trace.Query) (trace.Result, error) {
	var out trace.Result
	err := c.unary(ctx, call{method: http.MethodPost, path: "/trace", body: q}, &out)
	return out, err
}

func networkPath(name string) string { return "/networks/" + url.PathEscape(name) }
func poolPath(name string) string    { return "/pools/" + url.PathEscape(name) }
