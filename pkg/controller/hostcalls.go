package controller

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/tunnel"
)

// hostCalls reaches the agents of hosts.
type hostCalls interface {
	// Transport carries requests to a host's agent; [tunnel.Hub] is one.
	Transport(host string) http.RoundTripper
}

var _ hostCalls = (*tunnel.Hub)(nil)

// hostCallTime is how long a host may take to answer.
const hostCallTime = 15 * time.Second

// maxHostAnswer bounds what is read of an agent's answer: a host with 20,000
// endpoints reports a few megabytes.
const maxHostAnswer = 64 << 20

// callHost asks the agent of a host; body and out are JSON, either may be nil.
func (c *Controller) callHost(ctx context.Context, host, method, path string, body, out any) error {
	ctx, cancel := context.WithTimeout(ctx, hostCallTime)
	defer cancel()
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, content)
	if err != nil {
		return fmt.Errorf("ask host: %w", err)
	}
	res, err := c.calls.Transport(host).RoundTrip(req)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer within %s", hostCallTime)
	case errors.Is(err, tunnel.ErrNoTunnel):
		return errors.New("its agent is not connected to this controller")
	case err != nil:
		return err
	}
	defer func() { _ = res.Body.Close() }()
	answer := io.LimitReader(res.Body, maxHostAnswer)
	if res.StatusCode >= 300 {
		var refused api.Error
		b, _ := io.ReadAll(answer) // what there is of it says enough
		if json.Unmarshal(b, &refused) != nil || refused.Message == "" {
			refused.Message = fmt.Sprintf("%s %s", res.Status, strings.TrimSpace(string(b)))
		}
		return errors.New(refused.Message)
	}
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(answer).Decode(out); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return nil
}

// eachHost calls f for all hosts at the same time and waits for all of them.
func eachHost(ids []string, f func(id string)) {
	var all sync.WaitGroup
	for _, id := range ids {
		all.Go(func() { f(id) })
	}
	all.Wait()
}
