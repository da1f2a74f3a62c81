// Package hostenter lets a process in a privileged container of the machine's
// own PID namespace become a command on the machine itself: it enters the
// namespaces of process 1 and replaces itself. It is what `docker clocker host
// exec` runs.
//
// It forks nothing and leaves nothing behind.
//
// Design page: docs/design/fleet.md.
package hostenter

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// path is what root's is on a machine.
const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// namespaces are those that a container does not share, the mounts last: after
// them /proc is another one.
var namespaces = []struct {
	file string
	kind int
}{
	{"cgroup", unix.CLONE_NEWCGROUP}, {"ipc", unix.CLONE_NEWIPC}, {"uts", unix.CLONE_NEWUTS},
	{"net", unix.CLONE_NEWNET}, {"mnt", unix.CLONE_NEWNS},
}

// Command is what is run on the machine.
type Command struct {
	Args []string
	// Env is added to the machine's PATH, HOME and LANG.
	Env []string
	// WorkDir is a directory of the machine; empty means the user's home.
	WorkDir string
	// User is "name|uid[:group|gid]"; empty means root.
	User string
}

// Exec becomes the command. It returns only with an error.
func Exec(c Command) error {
	if len(c.Args) == 0 {
		return errors.New("enter machine: no command to run")
	}
	// What follows changes this thread alone; exec makes it the only one.
	runtime.LockOSThread()
	if err := enter(); err != nil {
		return err
	}
	who, err := lookup(c.User)
	if err != nil {
		return err
	}
	dir := c.WorkDir
	if dir == "" {
		dir = who.home
	}
	if err := unix.Chdir(dir); err != nil {
		if c.WorkDir != "" {
			return fmt.Errorf("enter directory %s: %w", dir, err)
		}
		if err := unix.Chdir("/"); err != nil {
			return fmt.Errorf("enter directory /: %w", err)
		}
	}
	if err := os.Setenv("PATH", path); err != nil {
		return fmt.Errorf("set PATH: %w", err)
	}
	program, err := exec.LookPath(c.Args[0])
	if err != nil {
		return fmt.Errorf("run on machine: %w", err)
	}
	if err := who.become(); err != nil {
		return err
	}
	if err := unix.Exec(program, c.Args, environment(who, c.Env)); err != nil {
		return fmt.Errorf("run %s: %w", program, err)
	}
	return nil
}

func enter() error {
	fds := make([]int, len(namespaces))
	for i, n := range namespaces {
		fd, err := unix.Open("/proc/1/ns/"+n.file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open namespace %s of process 1: %w", n.file, err)
		}
		fds[i] = fd
	}
	// A thread that shares its root with others may not change its mounts.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare root: %w", err)
	}
	for i, n := range namespaces {
		if err := unix.Setns(fds[i], n.kind); err != nil {
			return fmt.Errorf("enter namespace %s: %w", n.file, err)
		}
	}
	return nil
}

// identity is who the command runs as.
type identity struct {
	name, home string
	uid, gid   int
	groups     []int
}

// lookup finds a user in the machine's own files.
func lookup(text string) (identity, error) {
	if text == "" {
		return identity{name: "root", home: "/root"}, nil
	}
	name, group, _ := strings.Cut(text, ":")
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return identity{}, fmt.Errorf("find user %s: the machine has none", name)
		}
	}
	id := identity{name: u.Username, home: u.HomeDir}
	id.uid, _ = strconv.Atoi(u.Uid) // digits, on Linux
	id.gid, _ = strconv.Atoi(u.Gid) // digits, on Linux
	if ids, err := u.GroupIds(); err == nil {
		for _, s := range ids {
			if g, err := strconv.Atoi(s); err == nil {
				id.groups = append(id.groups, g)
			}
		}
	}
	if group == "" {
		return id, nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		if g, err = user.LookupGroupId(group); err != nil {
			return identity{}, fmt.Errorf("find group %s: the machine has none", group)
		}
	}
	id.gid, _ = strconv.Atoi(g.Gid) // digits, on Linux
	return id, nil
}

func (i identity) become() error {
	if i.uid == 0 && i.gid == 0 {
		return nil
	}
	// The raw calls change this thread alone, which is all that is left after
	// exec.
	if err := unix.Setgroups(i.groups); err != nil {
		return fmt.Errorf("become user %s: %w", i.name, err)
	}
	if err := unix.Setresgid(i.gid, i.gid, i.gid); err != nil {
		return fmt.Errorf("become user %s: %w", i.name, err)
	}
	if err := unix.Setresuid(i.uid, i.uid, i.uid); err != nil {
		return fmt.Errorf("become user %s: %w", i.name, err)
	}
	return nil
}

// environment is the machine's, with what was asked for and the terminal's
// name.
func environment(who identity, asked []string) []string {
	env := []string{"PATH=" + path, "HOME=" + who.home, "USER=" + who.name, "LOGNAME=" + who.name, "LANG=C.UTF-8"}
	if t := os.Getenv("TERM"); t != "" {
		env = append(env, "TERM="+t)
	}
	for _, v := range asked {
		k, _, _ := strings.Cut(v, "=")
		if i := slices.IndexFunc(env, func(e string) bool { return strings.HasPrefix(e, k+"=") }); i >= 0 {
			env[i] = v
			continue
		}
		env = append(env, v)
	}
	return env
}
