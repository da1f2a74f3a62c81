package testbed

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// controlSocket is where a machine's init takes orders. The machine outside
// reaches it through /proc/PID/root.
const controlSocket = "/run/testbed.sock"

// order is one request to a machine's init; answered by one line, "ok" or
// what is wrong.
type order struct {
	Verb    string  `json:"verb"` // add, start, stop, end, kill, remove, pause, resume, reload
	Service service `json:"service"`
	answer  chan<- string
}

func listenOrders() (<-chan order, error) {
	l, err := net.Listen("unix", controlSocket)
	if err != nil {
		return nil, fmt.Errorf("listen for orders: %w", err)
	}
	if err := os.Chmod(controlSocket, 0o600); err != nil {
		return nil, fmt.Errorf("listen for orders: %w", err)
	}
	orders := make(chan order)
	go func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				go serveOrder(c, orders)
			}
		}
	}()
	return orders, nil
}

func serveOrder(c net.Conn, orders chan<- order) {
	defer c.Close()
	var o order
	if err := json.NewDecoder(c).Decode(&o); err != nil {
		return
	}
	answer := make(chan string, 1)
	o.answer = answer
	orders <- o
	fmt.Fprint(c, <-answer)
}

func (s *supervisor) obey(o order) {
	if o.Verb == "add" {
		s.add(o.Service)
		o.answer <- "ok"
		return
	}
	r := s.byName[o.Service.Name]
	if r == nil {
		o.answer <- "no service " + o.Service.Name
		return
	}
	switch o.Verb {
	case "start":
		r.want, r.due = true, time.Time{}
		o.answer <- "ok"
	case "pause", "resume", "reload":
		if r.pid == 0 {
			o.answer <- r.Name + " is not running"
			return
		}
		_ = unix.Kill(r.pid, map[string]unix.Signal{"pause": unix.SIGSTOP, "resume": unix.SIGCONT, "reload": unix.SIGHUP}[o.Verb])
		o.answer <- "ok"
	case "stop", "end", "remove":
		r.want = false
		if o.Verb == "remove" {
			s.forget(r)
		}
		if r.pid == 0 {
			o.answer <- "ok"
			return
		}
		r.gone = append(r.gone, o.answer)
		if o.Verb != "stop" {
			_ = unix.Kill(r.pid, unix.SIGKILL)
			return
		}
		if r.mustEnd.IsZero() {
			r.mustEnd = time.Now().Add(stopPatience)
			_ = unix.Kill(r.pid, unix.SIGTERM)
		}
	case "kill": // as a crash: it is started again
		if r.pid == 0 {
			o.answer <- r.Name + " is not running"
			return
		}
		r.gone = append(r.gone, o.answer)
		_ = unix.Kill(r.pid, unix.SIGKILL)
	default:
		o.answer <- "no order " + o.Verb
	}
}

// forget drops a service as soon as it has ended.
func (s *supervisor) forget(r *running) {
	r.forgotten = true
	delete(s.byName, r.Name)
	s.sweep()
}

func (s *supervisor) sweep() {
	s.all = slices.DeleteFunc(s.all, func(r *running) bool { return r.forgotten && r.pid == 0 })
}

// sendOrder asks the init of a machine and waits for its answer.
func sendOrder(p process, verb string, s service) error {
	if !p.alive() {
		return fmt.Errorf("order %s %s: %w", verb, s.Name, errDown)
	}
	c, err := net.Dial("unix", fmt.Sprintf("/proc/%d/root%s", p.PID, controlSocket))
	if err != nil {
		return fmt.Errorf("order %s %s: %w", verb, s.Name, err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(stopPatience + 10*time.Second)); err != nil {
		return fmt.Errorf("order %s %s: %w", verb, s.Name, err)
	}
	if err := json.NewEncoder(c).Encode(order{Verb: verb, Service: s}); err != nil {
		return fmt.Errorf("order %s %s: %w", verb, s.Name, err)
	}
	buf := make([]byte, 512)
	n, err := c.Read(buf)
	if err != nil {
		return fmt.Errorf("order %s %s: %w", verb, s.Name, err)
	}
	if got := string(buf[:n]); got != "ok" {
		return fmt.Errorf("order %s %s: %s", verb, s.Name, got)
	}
	return nil
}

// errDown is returned where a machine that is down is asked to do something.
var errDown = errors.New("the host is down")
