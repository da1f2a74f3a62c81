// Package api is the controller's HTTP interface: the paths under /v1, what
// they take and give, the server that a controller mounts and the client that
// the CLI plugin uses. Calls travel over mutual TLS 1.3; streams are JSON
// lines. It decides nothing: the server calls a [Backend].
//
// Design page: docs/design/api.md.
package api

import (
	"time"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
)

// Version is the path prefix of this interface.
const Version = "/v1"

// Paths. {app} and {host} are names.
//
//	GET    /v1/info                          Info
//	POST   /v1/applications                  DeployRequest → stream of Progress
//	GET    /v1/applications                  → []Application
//	GET    /v1/applications/{app}            → ApplicationDetail
//	DELETE /v1/applications/{app}            → stream of Progress
//	POST   /v1/applications/{app}/cancel     takes back a release under way
//	GET    /v1/applications/{app}/progress?release=N → stream of Progress
//	POST   /v1/applications/{app}/{stop|start|restart}?service=a&service=b → stream of Progress
//	GET    /v1/tasks?app=NAME                → []Task
//	GET    /v1/tasks/{task}/logs?follow=1&tail=N&since=T&timestamps=1 → raw engine log stream (stdcopy framed)
//	POST   /v1/tasks/{task}/exec             ExecRequest, connection is taken over (Upgrade: tcp)
//	GET    /v1/tasks/{task}/exec/{exec}      → ExecState
//	POST   /v1/tasks/{task}/exec/{exec}/resize?h=N&w=N  size of the command's terminal
//	GET    /v1/hosts                         → []Host
//	POST   /v1/hosts                         HostRequest → HostCredentials
//	GET    /v1/hosts/{host}                  → Host
//	DELETE /v1/hosts/{host}?force=1          takes the host's work and keys away → stream of Progress
//	GET    /v1/events?follow=1&since=ID      → stream of record.Event

// Info describes the controller and its fleet.
type Info struct {
	Fleet   string `json:"fleet"`
	Version string `json:"version"`
	Commit  string `json:"commit"`
	// Leader is the URL of the leading controller; empty when there is none.
	Leader   string   `json:"leader"`
	Etcd     []string `json:"etcd"`
	Hosts    int      `json:"hosts"`
	HostsUp  int      `json:"hostsUp"`
	Apps     int      `json:"apps"`
	Tasks    int      `json:"tasks"`
	Running  int      `json:"running"`
	EtcdKind string   `json:"etcdKind"` // "embedded" or "external"
	// Now is the controller's clock, which a host's must not be far from.
	Now time.Time `json:"now,omitzero"`
	// Pools are the address pools (CIDR) that no host's own routes may meet.
	Pools []string `json:"pools,omitempty"`
}

// DeployRequest asks for an application to become what the model says.
type DeployRequest struct {
	Application *model.Application `json:"application"`
	// DryRun plans and answers with steps, and changes nothing.
	DryRun bool `json:"dryRun,omitempty"`
	// Explain lists every host with each new replica of a dry run.
	Explain bool `json:"explain,omitempty"`
	// Wait waits until every replica is healthy, not only started.
	Wait bool `json:"wait,omitempty"`
}

// Progress is one line of a stream. Exactly one of Step, Task, Problem and
// Done is set, or none when the line only shows that the stream lives.
type Progress struct {
	Release int `json:"release,omitempty"`
	// Step is something that will be done, with its cause.
	Step *Step `json:"step,omitempty"`
	// Task is a replica whose state has changed.
	Task *Task `json:"task,omitempty"`
	// Problem is something that makes the request fail; more may follow.
	Problem string `json:"problem,omitempty"`
	// Done ends the stream: "ok", "failed", "cancelled" or "conflict".
	Done string `json:"done,omitempty"`
}

// Step is one step of a plan.
type Step struct {
	// Action is "create", "replace", "remove", "keep", "stop", "start",
	// "restart", or "refuse" for a replica that no host takes; Kind is
	// "network" or "task".
	Action  string `json:"action"`
	Kind    string `json:"kind"`
	Subject string `json:"subject"`
	Host    string `json:"host,omitempty"`
	Cause   string `json:"cause"`
	// Hosts say why the host was chosen, or why none was; only when asked for,
	// or when the step is a refusal.
	Hosts []HostVerdict `json:"hosts,omitempty"`
}

// Application is a line of `docker clocker ls`.
type Application struct {
	Name    string `json:"name"`
	Title   string `json:"title,omitempty"`
	Dialect string `json:"dialect"`
	// Status is "deploying", "running", "degraded", "stopped", "failed" or
	// "removing".
	Status    string    `json:"status"`
	Services  int       `json:"services"`
	Replicas  int       `json:"replicas"`
	Running   int       `json:"running"`
	Release   int       `json:"release"`
	CreatedAt time.Time `json:"createdAt"`
	UpdatedAt time.Time `json:"updatedAt"`
	Error     string    `json:"error,omitempty"`
}

// ApplicationDetail is what `docker clocker inspect` shows.
type ApplicationDetail struct {
	Application
	Current  *record.Release  `json:"current,omitempty"`
	Releases []ReleaseInfo    `json:"releases"`
	Networks []record.Network `json:"networks"`
	Tasks    []Task           `json:"tasks"`
}

// ReleaseInfo is one release of an application's history.
type ReleaseInfo struct {
	Number    int       `json:"number"`
	Phase     string    `json:"phase"`
	Problems  []string  `json:"problems,omitempty"`
	CreatedAt time.Time `json:"createdAt"`
	By        string    `json:"by,omitempty"`
}

// Task is one replica as wanted and as seen.
type Task struct {
	ID      string `json:"id"`
	App     string `json:"app"`
	Service string `json:"service"`
	Slot    int    `json:"slot"`
	// Name is the container's name.
	Name  string `json:"name"`
	Image string `json:"image"`
	// Host is the host's name, HostAddress its address.
	Host        string `json:"host"`
	HostAddress string `json:"hostAddress"`
	// Desired is the assignment's phase; State one of store's State
	// constants or "waiting".
	Desired   string            `json:"desired"`
	State     string            `json:"state"`
	Health    string            `json:"health,omitempty"`
	Container string            `json:"container,omitempty"`
	Addresses map[string]string `json:"addresses,omitempty"`
	Ports     []model.Port      `json:"ports,omitempty"`
	Error     string            `json:"error,omitempty"`
	ExitCode  int               `json:"exitCode,omitempty"`
	// Waiting says what the task waits for.
	Waiting   string    `json:"waiting,omitempty"`
	StartedAt time.Time `json:"startedAt,omitzero"`
	CreatedAt time.Time `json:"createdAt,omitzero"`
}

// Host is a host as added and as seen.
type Host struct {
	record.Host
	// Status is "ready", "cordoned", "draining", "suspect", "lost",
	// "quarantined", "down", "joining" or "removing".
	Status string            `json:"status"`
	Facts  *record.HostFacts `json:"facts,omitempty"`
	// Usage is how busy it is, Health what the leader makes of its lease; nil
	// when nothing was told.
	Usage  *record.HostUsage  `json:"usage,omitempty"`
	Health *record.HostHealth `json:"health,omitempty"`
	// Underlay is how other hosts reach it, as its network plugin says.
	Underlay *record.Underlay `json:"underlay,omitempty"`
	Tasks    int              `json:"tasks"`
	Since    time.Time        `json:"since,omitzero"`
}

// HostRequest registers a host that is about to be adopted. Sent again with
// the same name and engine it answers with the same id and a new certificate,
// so that an adoption that was interrupted goes on; the name of another engine,
// or the engine of another name, is a conflict.
type HostRequest struct {
	Name     string            `json:"name"`
	Endpoint string            `json:"endpoint"`
	Address  string            `json:"address"`
	Labels   map[string]string `json:"labels,omitempty"`
	// Routes are the destinations of the host's routes; one that meets the
	// fleet's address pool is refused.
	Routes []string `json:"routes,omitempty"`
	// CSR is a PEM certificate request for the key made for the host.
	CSR string `json:"csr"`
	// EngineID is the engine's own id: the same machine under two names is
	// refused.
	EngineID string `json:"engineID"`
}

// HostCredentials is what a host needs to take part.
type HostCredentials struct {
	ID          string   `json:"id"`
	Fleet       string   `json:"fleet"`
	CA          string   `json:"ca"`
	Certificate string   `json:"certificate"`
	Etcd        []string `json:"etcd"`
	Controllers []string `json:"controllers"`
	// EtcdCA, EtcdCert and EtcdKey are PEM, for an etcd cluster of the
	// user's own; empty when the fleet's certificates serve.
	EtcdCA   string `json:"etcdCA,omitempty"`
	EtcdCert string `json:"etcdCert,omitempty"`
	EtcdKey  string `json:"etcdKey,omitempty"`
}

// ExecRequest runs a command in a task's container.
type ExecRequest struct {
	Cmd     []string `json:"cmd"`
	TTY     bool     `json:"tty,omitempty"`
	Stdin   bool     `json:"stdin,omitempty"`
	Env     []string `json:"env,omitempty"`
	User    string   `json:"user,omitempty"`
	WorkDir string   `json:"workDir,omitempty"`
	Height  uint     `json:"height,omitempty"`
	Width   uint     `json:"width,omitempty"`
}

// ExecHeader is the header of the answer to an exec (101) that names the exec,
// for its state and for resizing its terminal. It is the engine's own exec id.
const ExecHeader = "Clocker-Exec"

// ExecState is how a command run by exec is getting on.
type ExecState struct {
	Running bool `json:"running"`
	// ExitCode means something once Running is false.
	ExitCode int `json:"exitCode"`
}

// Error is the body of every answer that is not 2xx: 400 for input that cannot
// be used, 404, 409 for a conflict with what is there, 503 from a controller
// that cannot serve now (a client tries the next one).
type Error struct {
	Message string `json:"message"`
	// Problems lists every problem when the request held several.
	Problems []string `json:"problems,omitempty"`
}
