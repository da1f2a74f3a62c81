package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
)

// CordonHost keeps new work from a host.
func (c *Client) CordonHost(ctx context.Context, host string) (Host, error) {
	var out Host
	err := c.unary(ctx, call{method: http.MethodPost, path: hostPath(host) + "/cordon"}, &out)
	return out, err
}

// EnableHost gives a host work again; a drain ends where it is.
func (c *Client) EnableHost(ctx context.Context, host string) (Host, error) {
	var out Host
	err := c.unary(ctx, call{method: http.MethodPost, path: hostPath(host) + "/enable"}, &out)
	return out, err
}

// PlanDrain tells what a drain of a host would do.
func (c *Client) PlanDrain(ctx context.Context, host string) (DrainPlan, error) {
	var out DrainPlan
	err := c.get(ctx, hostPath(host)+"/drain", nil, &out)
	return out, err
}

// DrainHost moves a host's work away and tells f how far that is.
func (c *Client) DrainHost(ctx context.Context, host string, f func(Progress) error) error {
	return c.progress(ctx, call{method: http.MethodPost, path: hostPath(host) + "/drain", stream: true}, f)
}

// PlanRebalance tells which replicas would move; 0 means as many as it takes.
func (c *Client) PlanRebalance(ctx context.Context, most int) ([]PlannedMove, error) {
	var out []PlannedMove
	err := c.get(ctx, "/rebalance", url.Values{"max": {strconv.Itoa(most)}}, &out)
	return out, err
}

// Rebalance moves replicas so that hosts are used evenly.
func (c *Client) Rebalance(ctx context.Context, most int, f func(Progress) error) error {
	return c.progress(ctx, call{method: http.MethodPost, path: "/rebalance", query: url.Values{"max": {strconv.Itoa(most)}}, stream: true}, f)
}
