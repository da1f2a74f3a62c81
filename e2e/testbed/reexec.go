package testbed

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"syscall"
)

// A machine (the hub or a host) is this program run again under one of these
// names. init below takes over before the importing program's own main does.
const (
	argBoot  = "clocker-testbed-boot"  // first stage: the machine's own view, new namespaces
	argInit  = "clocker-testbed-init"  // second stage: process 1 of the new root
	argFront = "clocker-testbed-front" // names and image front of the hub
)

// configFD is where a first stage reads its config; it is handed on to the
// second stage as a file in memory.
const configFD = 3

// machineConfig is all that a machine's init needs to know.
type machineConfig struct {
	Hostname string
	Tree     string    // root tree, read only
	Disk     string    // directory with upper, work and root (mount point)
	Overlays []overlay // more mounts, made before the root is changed
	Binds    [][2]string
	Cgroup   string // path below the root of each hierarchy
	Sysctls  map[string]string
	Services []service
}

// overlay is one more overlay mount of a machine, at a path of its own root.
type overlay struct{ Lower, Upper, Work, At string }

func init() {
	if len(os.Args) == 0 {
		return
	}
	var err error
	switch os.Args[0] {
	case argBoot:
		err = bootStage()
	case argInit:
		err = initStage()
	case argFront:
		err = frontMain(os.Args[1:])
	default:
		return
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[0], err)
		os.Exit(1)
	}
	os.Exit(0)
}

// bootStage is the first thing that runs in a machine's new namespaces. It
// waits for its config, which comes when its links are in place; the pipe
// closing without one means that whoever boots it has died.
func bootStage() error {
	in := os.NewFile(configFD, "config")
	b, err := io.ReadAll(in)
	if err != nil {
		return fmt.Errorf("read config: %w", err)
	}
	in.Close()
	if len(b) == 0 {
		return fmt.Errorf("read config: none came")
	}
	var c machineConfig
	if err := json.Unmarshal(b, &c); err != nil {
		return fmt.Errorf("parse config: %w", err)
	}
	cgroups, err := hierarchies()
	if err != nil {
		return err
	}
	if err := enterCgroups(cgroups, c.Cgroup); err != nil {
		return err
	}
	if err := buildRoot(c, cgroups); err != nil {
		return err
	}
	fd, err := memFile("config", b)
	if err != nil {
		return fmt.Errorf("hand on config: %w", err)
	}
	if fd != configFD {
		if err := syscall.Dup3(fd, configFD, 0); err != nil {
			return fmt.Errorf("hand on config: %w", err)
		}
		syscall.Close(fd)
	}
	// Only the calling thread is in the new cgroup namespace; exec makes it
	// the only one.
	if err := syscall.Exec("/proc/self/exe", []string{argInit}, machineEnv()); err != nil {
		return fmt.Errorf("run second stage: %w", err)
	}
	return nil
}

// initStage is process 1 inside the machine's own root.
func initStage() error {
	in := os.NewFile(configFD, "config")
	var c machineConfig
	if err := json.NewDecoder(in).Decode(&c); err != nil {
		return fmt.Errorf("parse config: %w", err)
	}
	in.Close()
	if err := setUp(c); err != nil {
		return err
	}
	return supervise(c.Services)
}

func machineEnv() []string {
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "LANG=C.UTF-8", "TERM=dumb",
	}
}
