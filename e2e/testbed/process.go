package testbed

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process names one process for good: a PID alone may come to mean another.
type process struct {
	PID   int    `json:"pid,omitempty"`
	Start uint64 `json:"start,omitempty"` // clock ticks since the machine started
}

// lookupProcess records the process that has the PID now.
func lookupProcess(pid int) (process, error) {
	_, start, err := procStat(pid)
	if err != nil {
		return process{}, fmt.Errorf("look up process %d: %w", pid, err)
	}
	return process{PID: pid, Start: start}, nil
}

// procStat reads a process's state letter and start time (proc(5), fields 3
// and 22). The command in field 2 may hold anything, so count from its end.
func procStat(pid int) (letter byte, start uint64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	i := bytes.LastIndexByte(b, ')')
	fields := strings.Fields(string(b[i+1:]))
	if i < 0 || len(fields) < 20 {
		return 0, 0, errors.New("stat has too few fields")
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return fields[0][0], start, err
}

// alive is false for one that ended, was never there, or waits to be reaped.
func (p process) alive() bool {
	if p.PID == 0 {
		return false
	}
	letter, start, err := procStat(p.PID)
	return err == nil && start == p.Start && letter != 'Z' && letter != 'X'
}

// kill ends the process and returns once it has ended. When it is the init of
// a PID namespace, all that is in the namespace has ended by then too.
func (p process) kill() error {
	if !p.alive() {
		return nil
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", p.PID, err)
	}
	defer unix.Close(fd)
	// The descriptor is bound to whoever has the PID now; only then does the
	// start time prove that it is ours.
	if !p.alive() {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", p.PID, err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return fmt.Errorf("kill process %d: still there after 30s", p.PID)
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for process %d: %w", p.PID, err)
		}
		if n > 0 {
			return nil
		}
	}
}

// pidsWithin lists the processes called name in the PID namespace whose init
// is given, and in the namespaces below it (containers), as the machine
// numbers them.
func pidsWithin(init int, name string) []int {
	want, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", init))
	if err != nil {
		return nil
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || !isCalled(pid, name) || !inNamespace(pid, want) {
			continue
		}
		pids = append(pids, pid)
	}
	return pids
}

// isCalled compares the name of the running file, and the name it was started
// by, which differ where one file has several names.
func isCalled(pid int, name string) bool {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return false
	}
	if filepath.Base(strings.TrimSuffix(exe, " (deleted)")) == name {
		return true
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return false
	}
	argv0, _, _ := bytes.Cut(cmdline, []byte{0})
	// Some programs rewrite their command line to "name: what it does".
	argv0, _, _ = bytes.Cut(argv0, []byte(" "))
	return filepath.Base(string(argv0)) == name
}

// nsGetParent is NS_GET_PARENT of ioctl_nsfs(2).
const nsGetParent = 0xb702

// inNamespace climbs from the process's PID namespace towards the machine's.
func inNamespace(pid int, want string) bool {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/pid", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	for err == nil {
		have, lerr := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		if lerr == nil && have == want {
			unix.Close(fd)
			return true
		}
		var parent int
		parent, err = unix.IoctlRetInt(fd, nsGetParent)
		unix.Close(fd)
		fd = parent
	}
	return false
}
