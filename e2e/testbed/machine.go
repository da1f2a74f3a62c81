package testbed

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// boot starts a machine (the hub or a host) in new namespaces. It calls wire
// with the running process, for the links that reach into its network
// namespace, and record, which must write the process down; only then is the
// machine let go. Should anything fail before, the process ends by itself.
func boot(dir string, c machineConfig, record func(process) error, wire func(pid int) error) error {
	for _, d := range []string{"upper", "work", "root"} {
		if err := os.MkdirAll(filepath.Join(c.Disk, d), 0o755); err != nil {
			return fmt.Errorf("boot %s: %w", c.Hostname, err)
		}
	}
	out, err := os.OpenFile(filepath.Join(dir, c.Hostname+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("boot %s: %w", c.Hostname, err)
	}
	defer out.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("boot %s: %w", c.Hostname, err)
	}
	defer w.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{argBoot}
	cmd.Env = machineEnv()
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = []*os.File{r}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true,
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC |
			syscall.CLONE_NEWPID | syscall.CLONE_NEWNET,
	}
	err = cmd.Start()
	r.Close()
	if err != nil {
		return fmt.Errorf("boot %s: %w", c.Hostname, err)
	}
	pid := cmd.Process.Pid
	p, err := lookupProcess(pid)
	go func() { _ = cmd.Wait() }() // reap it, should this program outlive it
	if err == nil {
		err = record(p)
	}
	if err == nil {
		err = wire(pid)
	}
	if err == nil {
		err = json.NewEncoder(w).Encode(c)
	}
	if err != nil {
		_ = p.kill()
		return fmt.Errorf("boot %s: %w", c.Hostname, err)
	}
	return nil
}
