package scale

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"

	"clocker.io/clocker/pkg/controller"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
)

// roleVariable tells this very program, run again, what it is: its value is a
// role in JSON.
const roleVariable = "CLOCKER_SCALE_ROLE"

// role is what a process of its own does. Exactly one field is set.
type role struct {
	Etcd       *etcdRole
	Controller *controllerRole
}

type etcdRole struct {
	Dir, Client, Peer  string // URLs but for Dir
	Cert, Key, Trusted string // files
}

type controllerRole struct {
	Config, Data, Listen string
	Etcd                 string // URL
	Cert, Key, Trusted   string // files
}

// niceness is the priority of a role's process beside that of all agents, 0.
func (r role) niceness() int {
	if r.Etcd != nil {
		return -10
	}
	return -5
}

// RunRole plays the part that a parent has given this process, until it is
// ended. It returns false in a process that has none.
func RunRole() (played bool, err error) {
	text := os.Getenv(roleVariable)
	if text == "" {
		return false, nil
	}
	var r role
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return true, fmt.Errorf("read role: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if r.Etcd != nil {
		return true, r.Etcd.run(ctx)
	}
	return true, r.Controller.run(ctx)
}

func (r *etcdRole) run(ctx context.Context) error {
	client, err := url.Parse(r.Client)
	if err != nil {
		return err
	}
	peer, err := url.Parse(r.Peer)
	if err != nil {
		return err
	}
	c := embed.NewConfig()
	c.Name, c.Dir = "scale", r.Dir
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	tls := transport.TLSInfo{CertFile: r.Cert, KeyFile: r.Key, TrustedCAFile: r.Trusted, ClientCertAuth: true}
	c.ClientTLSInfo, c.PeerTLSInfo = tls, tls
	// As the embedded one of a controller.
	c.AutoCompactionMode, c.AutoCompactionRetention = "periodic", "1h"
	c.QuotaBackendBytes = 2 << 30
	c.LogLevel, c.LogOutputs = "error", []string{"stderr"}
	e, err := embed.StartEtcd(c)
	if err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-e.Err():
		return err
	}
}

func (r *controllerRole) run(ctx context.Context) error {
	return controller.Run(ctx, controller.Options{
		ConfigDir: r.Config, DataDir: r.Data, Listen: r.Listen,
		Etcd: []string{r.Etcd}, EtcdCA: r.Trusted, EtcdCert: r.Cert, EtcdKey: r.Key,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
}

// process is a role that runs.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// start runs a role in a process of its own, which writes to log and dies with
// this one. It has a session of its own, which Linux gives a share of the
// processors of its own, too; etcd's is a larger one where this process may give
// it that: on real machines a thousand agents would not take its time.
func start(r role, log *os.File, env ...string) (*process, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command("nice", "-n", strconv.Itoa(r.niceness()), self), done: make(chan struct{})}
	p.cmd.Env = append(append(os.Environ(), roleVariable+"="+string(text)), env...)
	p.cmd.Stderr = log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start process: %w", err)
	}
	group := fmt.Sprintf("/proc/%d/autogroup", p.cmd.Process.Pid)
	_ = os.WriteFile(group, []byte(strconv.Itoa(r.niceness())), 0) // without the right to it, its share is an equal one
	go func() { _ = p.cmd.Wait(); close(p.done) }()                // how it ended is in the log
	return p, nil
}

// kill ends it as a machine without power would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.done
}
