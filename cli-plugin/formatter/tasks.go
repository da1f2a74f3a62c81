package formatter

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/cli/cli/command/formatter"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
)

const taskTable = "table {{.Name}}\t{{.Image}}\t{{.Host}}\t{{.Address}}\t{{.Status}}\t{{.Ports}}"

// Tasks renders `docker clocker ps`.
func Tasks(o Options, tasks []api.Task) error {
	header := formatter.SubHeaderContext{
		"ID": "ID", "Name": "NAME", "App": "APP", "Service": "SERVICE", "Slot": "SLOT", "Image": "IMAGE",
		"Host": "HOST", "HostAddress": "HOST ADDRESS", "Address": "ADDRESS", "State": "STATE", "Health": "HEALTH",
		"Status": "STATUS", "Ports": "PORTS", "Container": "CONTAINER", "Error": "ERROR", "ExitCode": "EXIT CODE",
		"Created": "CREATED",
	}
	return write(o, taskTable, "{{.ID}}", header, tasks, func(t api.Task) formatter.SubContext {
		return &taskRow{o: o, t: t}
	})
}

type taskRow struct {
	formatter.HeaderContext
	o Options
	t api.Task
}

func (r *taskRow) MarshalJSON() ([]byte, error) { return formatter.MarshalJSON(r) }

func (r *taskRow) ID() string          { return r.t.ID }
func (r *taskRow) Name() string        { return r.t.Name }
func (r *taskRow) App() string         { return r.t.App }
func (r *taskRow) Service() string     { return r.t.Service }
func (r *taskRow) Slot() int           { return r.t.Slot }
func (r *taskRow) Image() string       { return r.o.image(r.t.Image) }
func (r *taskRow) Host() string        { return dash(r.t.Host) }
func (r *taskRow) HostAddress() string { return r.t.HostAddress }
func (r *taskRow) State() string       { return r.t.State }
func (r *taskRow) Health() string      { return r.t.Health }
func (r *taskRow) Error() string       { return r.t.Error }
func (r *taskRow) ExitCode() int       { return r.t.ExitCode }
func (r *taskRow) Created() string     { return ago(r.o.Now, r.t.CreatedAt) }
func (r *taskRow) Status() string      { return r.o.cell(TaskStatus(r.t, r.o.Now)) }
func (r *taskRow) Ports() string       { return PublishedPorts(r.t) }

// Container is the engine's id, short unless cells are kept whole.
func (r *taskRow) Container() string {
	if r.o.NoTrunc {
		return r.t.Container
	}
	return formatter.TruncateID(r.t.Container)
}

// Address lists the task's addresses, one for each of its networks.
func (r *taskRow) Address() string {
	return dash(strings.Join(slices.Sorted(maps.Values(r.t.Addresses)), ", "))
}

// TaskStatus says in words how a task is getting on, as docker ps does, with
// the reason when it is not as it should be.
func TaskStatus(t api.Task, now time.Time) string {
	s := stateWords(t, now)
	switch {
	case t.Error != "":
		return s + ": " + t.Error
	case t.Waiting != "" && t.State != record.StateRunning:
		return s + ": " + t.Waiting
	}
	return s
}

func stateWords(t api.Task, now time.Time) string {
	switch t.State {
	case record.StateRunning:
		s := "Up"
		if a := age(now, t.StartedAt); a != "" {
			s += " " + a
		}
		switch t.Health {
		case "":
			return s
		case "starting":
			return s + " (health: starting)"
		}
		return s + " (" + t.Health + ")"
	case record.StateStopped, record.StateFailed:
		s := capital(t.State)
		if t.ExitCode != 0 {
			s += fmt.Sprintf(" (%d)", t.ExitCode)
		}
		return s
	case "":
		return "Pending"
	}
	return capital(t.State)
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// PublishedPorts lists a task's ports as docker ps does, with the address of
// its host: "10.88.0.11:80->9090/tcp, 9091/tcp". A port that every host
// publishes has "*" for an address.
func PublishedPorts(t api.Task) string {
	var out []string
	for _, p := range t.Ports {
		s := fmt.Sprintf("%d/%s", p.ContainerPort, protocol(p))
		if p.HostPort != 0 {
			s = net.JoinHostPort(publishedOn(t, p), strconv.Itoa(int(p.HostPort))) + "->" + s
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

func publishedOn(t api.Task, p model.Port) string {
	switch {
	case p.HostIP != "" && p.HostIP != "0.0.0.0" && p.HostIP != "::":
		return p.HostIP
	case p.Mode == "ingress" || t.HostAddress == "":
		return "*"
	}
	return t.HostAddress
}

func protocol(p model.Port) string {
	if p.Protocol == "" {
		return "tcp"
	}
	return p.Protocol
}

// PublishedURLs lists where the published ports of tasks can be reached from
// outside: "http://10.88.0.11:80" for a TCP port that a browser can try, else
// "10.88.0.11:6379" or "10.88.0.11:53/udp". The same place is listed once.
func PublishedURLs(tasks []api.Task) []string {
	var out []string
	for _, t := range tasks {
		for _, p := range t.Ports {
			if p.HostPort == 0 || t.HostAddress == "" {
				continue
			}
			host := publishedOn(t, p)
			if host == "*" {
				host = t.HostAddress
			}
			s := net.JoinHostPort(host, strconv.Itoa(int(p.HostPort)))
			switch {
			case protocol(p) != "tcp":
				s += "/" + protocol(p)
			case p.HostPort == 443 || p.ContainerPort == 443 || p.ContainerPort == 8443:
				s = "https://" + s
			case !slices.Contains(notHTTP, p.ContainerPort):
				s = "http://" + s
			}
			if !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	return out
}

// notHTTP are the registered ports of well-known servers that speak something
// else (IANA service names: ssh, smtp, domain, ldap, amqp, mysql, postgresql,
// redis, mongodb and the like).
var notHTTP = []uint16{
	22, 25, 53, 110, 143, 389, 465, 587, 636, 993, 995, 1433, 1521, 1883, 2181, 3306,
	4222, 5432, 5672, 6379, 7687, 8883, 9042, 9092, 11211, 27017,
}
