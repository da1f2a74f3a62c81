package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// hammer asks a page again and again until stop is called, which returns how
// often it answered and what went wrong.
func hammer(ctx context.Context, url string) (stop func() (answers int, failures []error)) {
	ctx, cancel := context.WithCancel(ctx)
	var mu sync.Mutex
	var answers int
	var failures []error
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			for ctx.Err() == nil {
				_, _, err := get(context.WithoutCancel(ctx), url)
				mu.Lock()
				if err == nil {
					answers++
				} else {
					failures = append(failures, err)
				}
				mu.Unlock()
			}
		})
	}
	return func() (int, []error) {
		cancel()
		all.Wait()
		return answers, failures
	}
}

const draining = `
services:
  front:
    image: clocker.io/test/web:1
    ports: ["%d:80"]
    deploy: {placement: {constraints: ["node.hostname == h1"]}}
  back:
    image: clocker.io/test/web:1
    deploy: {replicas: 3}
  data:
    image: clocker.io/test/web:1
    deploy: {placement: {constraints: ["node.hostname == h2"]}}
    volumes: ["/var/tmp:/data"]
`

// A drain must move what runs without a request that fails, say what cannot
// leave, and end in order when it is interrupted.
func TestDrainMustFailNoRequest(t *testing.T) {
	f := shared
	f.deploy(t, "drain", "compose.yaml", fmt.Sprintf(draining, 18310))
	f.spread(t, 20*time.Second, "drain", 5, "h1", "h2", "h3")
	t.Cleanup(func() {
		for _, h := range []string{"h2", "h3"} {
			if r := f.command(context.Background(), "clocker", "host", "enable", h); r.code != 0 {
				t.Error(r.err())
			}
		}
	})
	page := fmt.Sprintf("http://%s:18310/dial?addr=back:80", f.bed.Host("h1").Address)
	await(t, 10*time.Second, "front reaches back", func() error { _, _, err := get(t.Context(), page); return err })
	r := f.refused(t, 1, []string{"not everything can move"}, "host", "drain", "--plan", "h2")
	if !strings.Contains(r.stdout, "drain-data-1") || !strings.Contains(r.stdout, "blocked") {
		t.Errorf("the plan does not tell what stays:\n%s", r.stdout)
	}

	stop := hammer(t.Context(), page)
	began := time.Now()
	r = f.command(t.Context(), "clocker", "host", "drain", "h3")
	took := time.Since(began)
	on := f.spread(t, 10*time.Second, "drain", 5, "h1", "h2")
	answers, failures := stop()
	if r.code != 0 {
		t.Fatal(r.err())
	}
	if len(failures) > 0 {
		t.Errorf("%d of %d requests failed while h3 was drained: %v", len(failures), answers+len(failures), failures[0])
	}
	t.Logf("drained in %s, %d requests answered, now %v", took.Round(100*time.Millisecond), answers, on)
	if out, err := replicasOn(t.Context(), f.bed.Host("h3"), "drain"); err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("left on h3: %s %v", out, err)
	}
	f.clocker(t, "host", "enable", "h3")

	f.refused(t, 5, []string{"drain-data-1", "/var/tmp"}, "host", "rm", "h2")
	f.is(t, 5*time.Second, "h2", "ready")
	f.interruptedDrain(t, "h2", "drain-data-1")
	f.is(t, 5*time.Second, "h2", "ready")
}

// interruptedDrain drains a host that what keeps from getting empty, and
// interrupts that once it is told.
func (f *fleet) interruptedDrain(t *testing.T, host, what string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := f.prepare(ctx, "clocker", "host", "drain", host)
	var out lockedBuffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, 20*time.Second, "the drain tells what stays", func() error {
		if !strings.Contains(out.String(), what+" stays on "+host) {
			return errors.New(out.String())
		}
		return nil
	})
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err == nil || !strings.Contains(out.String(), "it takes work again") {
		t.Errorf("interrupted, the drain ended with %v:\n%s", err, out.String())
	}
}

// lockedBuffer may be read while a program writes to it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
