package controller

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/client"
	"golang.org/x/crypto/ssh"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet"
	"clocker.io/clocker/pkg/fleet/sshhost"
	"clocker.io/clocker/pkg/location"
)

var _ fleet.Controller = (*Controller)(nil)

// fleetAdopter is the real [hostAdopter]: it reaches machines over SSH and
// engines over TLS, as a user's machine does.
type fleetAdopter struct{ c *Controller }

// Adopt implements [hostAdopter].
func (f *fleetAdopter) Adopt(ctx context.Context, m adoption) (string, error) {
	k, err := f.c.scale.carried()
	if err != nil {
		return "", err
	}
	name := m.machine.Name
	if m.host != "" {
		name = m.host // it was begun under this name
	}
	o := fleet.AdoptOptions{AddOptions: fleet.AddOptions{
		Controller: f.c, Fleet: f.c.fleet, CA: f.c.signer().Bundle(), Endpoint: m.machine.Endpoint,
		Name: name, Labels: m.labels, Kit: k,
	}}
	if o.SSH, err = sshOptions(m); err != nil {
		return "", err
	}
	if m.provider.InstallEngine {
		o.Install = &fleet.EngineSource{}
	}
	e, closer, err := reach(ctx, m)
	switch {
	case err == nil:
		defer closer()
		// A controller that leads no more leaves the rest to the next one: it
		// must not take back what that one makes.
		defer context.AfterFunc(ctx, closer)()
		o.Engine = e
	case o.Install == nil:
		return "", err
	}
	h, err := fleet.Adopt(ctx, o, func(p fleet.Progress) {
		f.c.log.Debug("adopting", "machine", machineName(m.machine), "step", p.Step, "state", p.State, "text", p.Text)
	})
	return h.ID, err
}

// Clear implements [hostAdopter].
func (f *fleetAdopter) Clear(ctx context.Context, m adoption) error {
	e, closer, err := reach(ctx, m)
	if err != nil {
		switch {
		case m.host == "" && m.machine.Host == "":
			return nil // it never was a host, or is none any more, and nothing answers
		case m.machine.Lost || m.machine.Ordered && !f.c.answers(m.host):
			return f.c.forgetLost(ctx, m.host, err)
		}
		return err
	}
	defer closer()
	k, err := f.c.scale.carried()
	if err != nil {
		return err
	}
	name := m.host
	if name == "" {
		name = machineName(m.machine)
	}
	err = fleet.RemoveHost(ctx, fleet.RemoveOptions{
		Controller: f.c, Fleet: f.c.fleet, Name: name, Engine: e, Kit: k,
		Force: m.machine.Ordered || m.machine.Lost || f.c.evenWithStrangers(),
	}, nil)
	if errors.Is(err, fleet.ErrOtherFleet) && m.host == "" {
		return nil // what is on it is not ours
	}
	return err
}

// answers reports whether a host's agent does.
func (c *Controller) answers(host string) bool {
	work, _, _ := c.workOf(c.findHost(host))
	return work.up
}

// forgetLost takes a host out of the fleet whose machine cannot be reached.
func (c *Controller) forgetLost(ctx context.Context, host string, why error) error {
	if host != "" {
		err := c.RemoveHost(ctx, host, true, func(api.Progress) error { return nil })
		if err != nil && !errors.Is(err, api.ErrNotFound) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", location.ErrUncleaned, why)
}

func (c *Controller) evenWithStrangers() bool {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	return c.cache.policies.headroom.Value.EvenWithStrangers
}

// sshOptions are the provider's own key and the machine's own host key: no
// file of this machine's is looked at.
func sshOptions(m adoption) (sshhost.Options, error) {
	o := sshhost.Options{HostKey: m.hostKey, Timeout: 10 * time.Second, Home: "/nonexistent", Getenv: func(string) string { return "" }}
	if !strings.HasPrefix(m.machine.Endpoint, "ssh://") {
		return o, nil
	}
	if m.hostKey == "" {
		return o, fmt.Errorf("machine %s: its SSH host key is not known", m.machine.Endpoint)
	}
	signer, err := ssh.ParsePrivateKey([]byte(m.access.SSHKey))
	if err != nil {
		return o, fmt.Errorf("machine %s: the private key of provider %s cannot be used", m.machine.Endpoint, m.provider.Name)
	}
	o.Signers = []ssh.Signer{signer}
	return o, nil
}

// reach connects to a machine's engine. closer may be called more than once.
func reach(ctx context.Context, m adoption) (_ *client.Client, closer func(), err error) {
	if strings.HasPrefix(m.machine.Endpoint, "ssh://") {
		t, err := sshhost.Parse(m.machine.Endpoint)
		if err != nil {
			return nil, nil, err
		}
		o, err := sshOptions(m)
		if err != nil {
			return nil, nil, err
		}
		machine, err := sshhost.Dial(ctx, t, o)
		if err != nil {
			return nil, nil, err
		}
		closer = sync.OnceFunc(func() { _ = machine.Close() })
		e, err := machine.Engine(ctx)
		if err != nil {
			closer()
			return nil, nil, err
		}
		return e, closer, nil
	}
	return reachTLS(ctx, m)
}

func reachTLS(ctx context.Context, m adoption) (*client.Client, func(), error) {
	pair, err := tls.X509KeyPair([]byte(m.access.Cert), []byte(m.access.Key))
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM([]byte(m.access.CA)) {
		return nil, nil, fmt.Errorf("machine %s: the certificates of provider %s cannot be used", m.machine.Endpoint, m.provider.Name)
	}
	t := &http.Transport{TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, MinVersion: tls.VersionTLS12}, IdleConnTimeout: 30 * time.Second}
	e, err := client.New(client.WithHTTPClient(&http.Client{Transport: t, CheckRedirect: client.CheckRedirect}), client.WithHost(m.machine.Endpoint))
	if err != nil {
		return nil, nil, fmt.Errorf("reach %s: %w", m.machine.Endpoint, err)
	}
	closer := sync.OnceFunc(func() { _ = e.Close(); t.CloseIdleConnections() })
	ask, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if _, err := e.Ping(ask, client.PingOptions{NegotiateAPIVersion: true}); err != nil {
		closer()
		return nil, nil, fmt.Errorf("reach %s: %w", m.machine.Endpoint, err)
	}
	return e, closer, nil
}
