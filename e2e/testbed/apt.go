package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
)

// machinePrograms are what the machine itself must have, by Debian package.
var machinePrograms = map[string]string{
	"mmdebstrap": "mmdebstrap",
	"nsenter":    "util-linux",
	"setpriv":    "util-linux",
}

var aptLock sync.Mutex

// ensurePrograms installs, from Debian, what the machine lacks, and says so.
func ensurePrograms(ctx context.Context, log func(string, ...any)) error {
	var missing []string
	for program, pkg := range machinePrograms {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	aptLock.Lock()
	defer aptLock.Unlock()
	fmt.Fprintf(os.Stderr, "testbed: installing on this machine: %s\n", strings.Join(missing, " "))
	if _, err := debianMirrorLocked(ctx, log); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"install", "-y", "-q", "--no-install-recommends"}, missing...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("install %s: %w: %s", strings.Join(missing, " "), err, lastLines(out, 5))
	}
	return nil
}

// debianMirror is the archive this machine's apt takes Debian from. Its lists
// are fetched first where there are none.
func debianMirror(ctx context.Context, log func(string, ...any)) (string, error) {
	aptLock.Lock()
	defer aptLock.Unlock()
	return debianMirrorLocked(ctx, log)
}

func debianMirrorLocked(ctx context.Context, log func(string, ...any)) (string, error) {
	if m := listedMirror(ctx); m != "" {
		return m, nil
	}
	log("apt: fetching package lists")
	// One dead source makes it fail although the others were fetched; what
	// counts is whether Debian's is there now.
	out, updateErr := exec.CommandContext(ctx, "apt-get", "update", "-q").CombinedOutput()
	if m := listedMirror(ctx); m != "" {
		return m, nil
	}
	err := errors.New("apt has no source of Debian main")
	if updateErr != nil {
		err = fmt.Errorf("%w: apt-get update: %w: %s", err, updateErr, lastLines(out, 5))
	}
	return "", fmt.Errorf("find Debian mirror: %w", err)
}

func listedMirror(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format",
		"$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(REPO_URI)", "Created-By: Packages").Output()
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(out)) {
		if uri, ok := strings.CutPrefix(strings.TrimSpace(line), "Debian|Debian|main|"); ok {
			return uri
		}
	}
	return ""
}
