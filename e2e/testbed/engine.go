package testbed

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/moby/client"
)

// enginePort is where every host's engine listens, with TLS both ways.
const enginePort uint16 = 2376

// readyLimit bounds the wait for an engine, long because machines that run
// tests are busy.
const readyLimit = 90 * time.Second

// DockerHost is the engine's address as in DOCKER_HOST.
func (h *Host) DockerHost() string {
	return fmt.Sprintf("tcp://%s:%d", h.Address, enginePort)
}

// CertPath is the directory, as in DOCKER_CERT_PATH, with the client's ca.pem,
// cert.pem and key.pem. All hosts of a testbed share it.
func (h *Host) CertPath() string { return h.bed.clientCerts() }

// Client is a client of the host's engine, over TLS. The caller closes it.
func (h *Host) Client() (*client.Client, error) {
	dir := h.CertPath()
	c, err := client.New(
		client.WithHost(h.DockerHost()),
		client.WithTLSClientConfig(filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to engine of %s: %w", h.Name, err)
	}
	return c, nil
}

// WaitReady waits until the host's engine, unless it is bare, answers and its
// sshd accepts. It
// asks from within the host, so that a host cut off from here gets ready too.
func (h *Host) WaitReady(ctx context.Context) error {
	ports := []uint16{22}
	if !h.Bare {
		ports = append(ports, enginePort)
		err := poll(ctx.Done(), readyLimit, "engine of "+h.Name, func() error { return h.engineAnswers(ctx) })
		if err != nil {
			return fmt.Errorf("%w (logs are in %s)", err, filepath.Join(hostDisk(h.bed.dir, h.Name), "upper/var/log"))
		}
	}
	return poll(ctx.Done(), readyLimit, "ports of "+h.Name, func() error {
		for _, port := range ports {
			if err := listens(h.PID(), port); err != nil {
				return err
			}
		}
		return nil
	})
}

func (h *Host) engineAnswers(ctx context.Context) error {
	pid := h.PID()
	if pid == 0 {
		return errDown
	}
	c, err := client.New(client.WithHost(fmt.Sprintf("unix:///proc/%d/root/run/docker.sock", pid)))
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err = c.Ping(ctx, client.PingOptions{})
	return err
}

// listens reads the host's table of TCP sockets (proc_net(5)): the second
// field ends in the local port, the fourth is 0A where it listens.
func listens(pid int, port uint16) error {
	want := fmt.Sprintf(":%04X", port)
	for _, table := range []string{"tcp", "tcp6"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 3 && strings.HasSuffix(f[1], want) && f[3] == "0A" {
				return nil
			}
		}
	}
	return fmt.Errorf("nothing listens on port %d", port)
}

// StopEngine stops dockerd, as an administrator would, and leaves it stopped.
func (h *Host) StopEngine(ctx context.Context) error { return h.orderEngine(ctx, "stop") }

// StartEngine starts dockerd after StopEngine and waits until it answers.
func (h *Host) StartEngine(ctx context.Context) error {
	if err := h.orderEngine(ctx, "start"); err != nil {
		return err
	}
	return h.WaitReady(ctx)
}

// KillEngine kills dockerd. The host's init starts it again at once, which
// WaitReady awaits.
func (h *Host) KillEngine(ctx context.Context) error { return h.orderEngine(ctx, "kill") }

func (h *Host) orderEngine(ctx context.Context, verb string) error {
	p, err := h.process()
	if err != nil {
		return err
	}
	if err := sendOrder(p, verb, service{Name: "dockerd"}); err != nil {
		return fmt.Errorf("%s on %s: %w", verb, h.Name, err)
	}
	return ctx.Err()
}

// KeepContainers turns live-restore on or off: with it, containers outlive
// their engine. It returns when the engine has taken it over.
func (h *Host) KeepContainers(ctx context.Context, on bool) error {
	path := filepath.Join(h.Root(), "etc/docker/daemon.json")
	err := editJSON(path, func(config map[string]any) { config["live-restore"] = on })
	if err == nil {
		err = h.orderEngine(ctx, "reload")
	}
	if err == nil {
		err = poll(ctx.Done(), readyLimit, "live-restore of "+h.Name, func() error {
			out, err := h.Exec(ctx, "docker", "info", "--format", "{{.LiveRestoreEnabled}}")
			if err == nil && strings.TrimSpace(out) != fmt.Sprint(on) {
				err = fmt.Errorf("it is %s", strings.TrimSpace(out))
			}
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("set live-restore of %s: %w", h.Name, err)
	}
	return nil
}

func editJSON(path string, f func(map[string]any)) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	config := map[string]any{}
	if err := json.Unmarshal(b, &config); err != nil {
		return err
	}
	f(config)
	if b, err = json.MarshalIndent(config, "", "\t"); err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// DisablePlugin ends a managed plugin of the engine although it is in use;
// EnablePlugin starts it again.
func (h *Host) DisablePlugin(ctx context.Context, name string) error {
	_, err := h.Exec(ctx, "docker", "plugin", "disable", "--force", name)
	return err
}

// EnablePlugin starts a managed plugin of the engine.
func (h *Host) EnablePlugin(ctx context.Context, name string) error {
	_, err := h.Exec(ctx, "docker", "plugin", "enable", name)
	return err
}
